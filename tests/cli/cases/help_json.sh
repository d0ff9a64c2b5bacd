"$LORAFOLD" help json

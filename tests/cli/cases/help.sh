"$LORAFOLD" help

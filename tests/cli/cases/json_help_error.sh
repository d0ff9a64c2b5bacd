"$LORAFOLD" help --json

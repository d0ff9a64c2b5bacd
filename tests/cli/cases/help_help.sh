"$LORAFOLD" help help

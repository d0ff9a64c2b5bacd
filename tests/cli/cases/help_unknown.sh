"$LORAFOLD" help exit-code

"$LORAFOLD" help exit-codes

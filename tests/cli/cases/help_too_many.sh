"$LORAFOLD" help merge plan

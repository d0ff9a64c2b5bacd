"$LORAFOLD" help merge

"$LORAFOLD" mrege base

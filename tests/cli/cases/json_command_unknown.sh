"$LORAFOLD" --json mrege

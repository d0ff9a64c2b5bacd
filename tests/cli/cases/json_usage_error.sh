"$LORAFOLD" merge base --json

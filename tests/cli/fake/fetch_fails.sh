"$LORAFOLD" fetch run-1 --json

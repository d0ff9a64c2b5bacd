"$LORAFOLD" plan base -a one --json

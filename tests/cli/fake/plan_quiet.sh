"$LORAFOLD" plan base -a one -q

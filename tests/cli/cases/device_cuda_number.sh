"$LORAFOLD" plan base -a a --device cuda:1

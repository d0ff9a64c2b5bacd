"$LORAFOLD" plan base -a a --device cuda:x

"$LORAFOLD" ./model -a x -o y

"$LORAFOLD" merge base -a missing:0.5x -o out

"$LORAFOLD" merge base -o out

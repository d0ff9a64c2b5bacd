"$LORAFOLD" merge base -a missing:1e999 -o out

"$LORAFOLD" merge base -a missing:heavy -o out

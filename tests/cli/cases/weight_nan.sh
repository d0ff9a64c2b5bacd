"$LORAFOLD" merge base -a missing:nan -o out

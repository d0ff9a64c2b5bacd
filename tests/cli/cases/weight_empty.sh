"$LORAFOLD" merge base -a missing: -o out

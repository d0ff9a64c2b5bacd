"$LORAFOLD" merge base -a 'missing: 1' -o out

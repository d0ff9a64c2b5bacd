"$LORAFOLD" merge base -a a -o out --threads 0

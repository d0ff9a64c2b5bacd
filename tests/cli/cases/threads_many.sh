"$LORAFOLD" merge base -a a -o out --threads 1025

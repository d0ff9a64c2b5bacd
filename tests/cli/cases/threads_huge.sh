"$LORAFOLD" merge base -a a -o out --threads 99999999999999999999

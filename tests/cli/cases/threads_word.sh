"$LORAFOLD" merge base -a a -o out --threads two

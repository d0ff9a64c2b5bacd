"$LORAFOLD" merge base -a a -o out --memory 5XB

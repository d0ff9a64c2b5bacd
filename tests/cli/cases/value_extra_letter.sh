"$LORAFOLD" merge base -a a -o out -n=1

"$LORAFOLD" merge base -a :0.5 -o out

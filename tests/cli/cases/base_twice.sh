"$LORAFOLD" merge base --model base -a a -o out

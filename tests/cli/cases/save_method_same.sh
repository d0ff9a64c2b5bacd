"$LORAFOLD" merge base -a a -o out --save_method=same

"$LORAFOLD" merge base -a a -o out --dtype int8

"$LORAFOLD" merge base -a a -o out --tied yes

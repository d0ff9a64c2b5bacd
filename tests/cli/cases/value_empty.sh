"$LORAFOLD" merge base -a a -o ''

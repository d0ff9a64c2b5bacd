"$LORAFOLD" merge base -a a

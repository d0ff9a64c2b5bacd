"$LORAFOLD" merge base -a a --ouput out

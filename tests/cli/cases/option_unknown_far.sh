"$LORAFOLD" merge base -a a --frobnicate

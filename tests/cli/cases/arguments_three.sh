"$LORAFOLD" merge base adapter out

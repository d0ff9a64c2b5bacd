"$LORAFOLD" merge base -a missing:0x1 -o out

"$LORAFOLD" merge base -o out --adapter

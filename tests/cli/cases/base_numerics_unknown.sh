"$LORAFOLD" merge base -a a -o out --base-numerics orginal

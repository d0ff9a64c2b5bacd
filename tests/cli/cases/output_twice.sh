"$LORAFOLD" merge base -a a -o out --output-dir out

"$LORAFOLD" merge base -a a -o out --no-safe-serialization

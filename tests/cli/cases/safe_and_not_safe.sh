"$LORAFOLD" merge base -a a -o out --safe-serialization --no-safe-serialization

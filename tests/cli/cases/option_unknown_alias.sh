"$LORAFOLD" merge base --adapters a -o out

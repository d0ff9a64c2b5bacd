"$LORAFOLD" merge base -a adapter -o out --clone maybe

"$LORAFOLD" merge run-3 -a one -o out --json

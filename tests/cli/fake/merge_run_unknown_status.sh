"$LORAFOLD" merge run-9 -a one -o out

"$LORAFOLD" merge fast -a one -o out --json

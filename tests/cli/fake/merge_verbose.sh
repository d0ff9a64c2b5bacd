"$LORAFOLD" merge fast -a one -o out -v

"$LORAFOLD" merge fast -a one -o out -q -q --overwrite --overwrite

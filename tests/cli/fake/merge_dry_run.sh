"$LORAFOLD" merge fast -a one -n

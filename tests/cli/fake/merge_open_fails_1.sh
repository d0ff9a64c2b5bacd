"$LORAFOLD" merge open-1 -a one -o out

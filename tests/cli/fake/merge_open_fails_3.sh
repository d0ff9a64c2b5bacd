"$LORAFOLD" merge open-3 -a one -o out

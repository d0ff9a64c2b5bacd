"$LORAFOLD" merge open-2 -a one -o out

"$LORAFOLD" merge open-4 -a one -o out

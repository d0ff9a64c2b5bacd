"$LORAFOLD" merge open-5 -a one -o out

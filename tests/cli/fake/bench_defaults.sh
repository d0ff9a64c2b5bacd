"$LORAFOLD" bench

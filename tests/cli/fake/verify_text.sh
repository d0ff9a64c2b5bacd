"$LORAFOLD" verify fast

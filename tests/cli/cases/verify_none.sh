"$LORAFOLD" verify

"$LORAFOLD" fetch

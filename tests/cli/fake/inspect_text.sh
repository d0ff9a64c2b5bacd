"$LORAFOLD" inspect x

"$LORAFOLD" inspect ''

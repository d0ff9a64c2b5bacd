"$LORAFOLD" --versoin

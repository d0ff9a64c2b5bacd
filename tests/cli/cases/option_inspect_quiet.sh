"$LORAFOLD" inspect out -q

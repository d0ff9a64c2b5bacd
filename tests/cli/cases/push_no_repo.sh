"$LORAFOLD" push ./out

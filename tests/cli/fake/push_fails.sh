"$LORAFOLD" push run-5 org/name

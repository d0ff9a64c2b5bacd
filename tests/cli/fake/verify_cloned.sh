"$LORAFOLD" verify cloned

"$LORAFOLD" verify out -a x

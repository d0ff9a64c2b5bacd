"$LORAFOLD" verify run-5

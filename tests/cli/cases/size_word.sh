"$LORAFOLD" verify out --memory lots

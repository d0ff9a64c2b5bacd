"$LORAFOLD" verify out --direct maybe

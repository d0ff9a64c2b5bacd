"$LORAFOLD" verify one two

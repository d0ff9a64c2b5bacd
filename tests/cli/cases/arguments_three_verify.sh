"$LORAFOLD" verify --deep one two three

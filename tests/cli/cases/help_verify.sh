"$LORAFOLD" verify --help

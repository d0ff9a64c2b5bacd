"$LORAFOLD" bench --help

"$LORAFOLD" inspect --help

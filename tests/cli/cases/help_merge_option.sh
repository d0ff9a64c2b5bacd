"$LORAFOLD" merge --help

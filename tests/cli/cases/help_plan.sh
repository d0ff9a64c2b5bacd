"$LORAFOLD" plan --help

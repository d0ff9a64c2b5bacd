"$LORAFOLD" --help

"$LORAFOLD" --version

"$LORAFOLD" merge --version

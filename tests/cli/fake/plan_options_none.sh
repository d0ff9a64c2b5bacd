"$LORAFOLD" plan -a one

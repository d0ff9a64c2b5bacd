"$LORAFOLD" plan -a one -- -base

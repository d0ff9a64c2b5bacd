"$LORAFOLD" merge --=x

"$LORAFOLD" plan open-4 -a one

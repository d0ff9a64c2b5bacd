"$LORAFOLD" verify fast -q

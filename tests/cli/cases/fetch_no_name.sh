"$LORAFOLD" fetch ./no/such

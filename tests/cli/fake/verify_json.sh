"$LORAFOLD" verify fast --json

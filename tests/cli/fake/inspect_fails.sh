"$LORAFOLD" inspect open-3 --json

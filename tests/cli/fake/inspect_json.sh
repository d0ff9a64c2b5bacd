"$LORAFOLD" inspect x --json

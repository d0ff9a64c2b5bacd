"$LORAFOLD" help exit_codes

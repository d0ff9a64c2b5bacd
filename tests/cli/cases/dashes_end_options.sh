"$LORAFOLD" verify -- -q --bogus

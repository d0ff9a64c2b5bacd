"$LORAFOLD" -a a --strict merge -o out base --bogus

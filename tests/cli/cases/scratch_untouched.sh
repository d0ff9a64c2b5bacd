"$LORAFOLD" merge base -a a -o out --bogus 2>/dev/null
[ -z "$(ls -A)" ]

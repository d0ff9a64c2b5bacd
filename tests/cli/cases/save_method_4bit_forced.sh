"$LORAFOLD" merge base -a a -o out --save-method=merged-4bit-forced

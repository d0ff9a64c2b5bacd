"$LORAFOLD" merge base -a a -o out --dtype bf16 --dtype bf16

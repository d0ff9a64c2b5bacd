"$LORAFOLD" merge base -a a -o out --device tpu

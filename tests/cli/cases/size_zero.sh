"$LORAFOLD" merge base -a a -o out --max-shard-size 0

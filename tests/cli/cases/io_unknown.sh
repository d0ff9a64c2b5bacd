"$LORAFOLD" merge base -a a -o out --io aio

"$LORAFOLD" merge base -a a -o out --device cpu --gpu-memory 1GiB

for value in 0 1.5 half -1; do
    "$LORAFOLD" plan base -a a --gpu-memory=$value
done

# With a GPU or without: the last GPU has a lower number, and none is left visible.
python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" merge base -a adapter -o out --device cuda:99
for visible in -1 no-such-gpu ''; do
    CUDA_VISIBLE_DEVICES=$visible "$LORAFOLD" merge base -a adapter -o out --device cuda && echo "merged"
done
for device in cuda: cuda:-1 cuda:1x cuda:99999999999999999999; do
    "$LORAFOLD" merge base -a adapter -o out --device "$device" && echo "merged"
done
[ ! -e out ] && [ ! -e out.partial ] || echo "something is left"
exit 2

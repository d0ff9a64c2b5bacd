python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" merge base -a adapter -o out --device sim --gpu-memory 1KiB
status=$?
"$LORAFOLD" merge base -a adapter -o out --device sim --gpu-memory 2GiB && status=0
"$LORAFOLD" merge base -a adapter -o out --memory 1KiB && status=0
[ ! -e out ] && [ ! -e out.partial ] || echo "something is left"
exit $status

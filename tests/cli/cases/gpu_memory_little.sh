python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" merge base -a adapter -o out --device sim --gpu-memory 1MiB

python3 "$CLI_TESTS/tiny_model.py" base a || exit 77
"$LORAFOLD" merge base -a a -o out --no-safe-serialization --clone always

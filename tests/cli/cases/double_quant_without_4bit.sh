python3 "$CLI_TESTS/tiny_model.py" base a
"$LORAFOLD" merge base -a a -o out --no-double-quant

python3 "$CLI_TESTS/tiny_model.py" base a
"$LORAFOLD" merge base -a a -o out --base-numerics nf4-roundtrip -q && grep '"base_numerics"' out/lorafold.json

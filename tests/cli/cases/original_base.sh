python3 "$CLI_TESTS/tiny_model.py" base a
"$LORAFOLD" merge missing -a a -o out --original-base base
"$LORAFOLD" merge -a a -o out --original-base base -q && grep '"base_numerics"' out/lorafold.json

python3 "$CLI_TESTS/tiny_model.py" base a
"$LORAFOLD" merge base -a a -o out --save-method merged_4bit -q && grep -E '"(quant_type|double_quant|base_numerics)"' out/lorafold.json
grep -E '"(bnb_4bit_quant_type|bnb_4bit_use_double_quant)"' out/config.json

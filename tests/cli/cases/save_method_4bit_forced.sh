python3 "$CLI_TESTS/tiny_model.py" base a
"$LORAFOLD" merge base -a a -o out --save-method=merged-4bit-forced --quant-type fp4 --no-double-quant -q
grep -E '"(quant_type|double_quant)"' out/lorafold.json

# The names that from_pretrained(variant=...) of transformers looks for.
python3 "$CLI_TESTS/tiny_model.py" base a || exit 77
"$LORAFOLD" merge base -a a -o one --variant fp16 -q && ls one
"$LORAFOLD" merge base -a a -o two --variant non_ema-2 --max-shard-size 8KB -q && ls two
"$LORAFOLD" verify two -q

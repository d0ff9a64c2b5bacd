# An adapter is one file, so that the option would do nothing.
python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" merge base -a adapter -o out --save-method lora --max-shard-size 1GB

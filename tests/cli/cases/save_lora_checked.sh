# The base is looked at for what a merge would refuse, and nothing of it but tokenizer files is taken.
python3 "$CLI_TESTS/tiny_model.py" base adapter || exit 77
python3 "$CLI_TESTS/tiny_model.py" other unused || exit 77
echo '{}' > base/tokenizer.json
"$LORAFOLD" plan base --save-method lora -a adapter -o out | sed '/^memory/,$d' || exit
sed -i 's/model.layers.0/model.layers.7/' other/model.safetensors
"$LORAFOLD" merge other --save-method lora -a adapter -o out -q
status=$?
ls -A
exit "$status"

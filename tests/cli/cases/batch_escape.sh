# A name in the sentence of an output that cannot be made does nothing to a terminal.
python3 "$CLI_TESTS/tiny_model.py" base adapters/good
cp -r adapters/good adapters/bad
ln -s nowhere "$(printf 'adapters/bad/tokenizer\033[2J.json')"
"$LORAFOLD" plan base --adapters-dir adapters > plan.txt 2> said.txt
! grep -q "$(printf '\033')" plan.txt said.txt && cat plan.txt said.txt | grep -c 'tokenizer\\x1b'

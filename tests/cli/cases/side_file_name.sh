# A file that verify would not take from the manifest is refused before anything is written.
python3 "$CLI_TESTS/tiny_model.py" base adapter || exit 77
for name in $'tokenizer\n.json' 'tokenizer\.json'; do
    echo '{}' >"base/$name"
    "$LORAFOLD" merge base -a adapter -o out -q
    echo "$? $(ls)"
    rm "base/$name"
done

# Overwriting must not remove what an input is a link to.
python3 "$CLI_TESTS/tiny_model.py" base adapter || exit 77
"$LORAFOLD" merge base -a adapter -o weights -q && "$LORAFOLD" merge base -a adapter -o side -q || exit 1
mv adapter/adapter_model.safetensors weights/
ln -s ../weights/adapter_model.safetensors adapter/
echo '{}' >side/vocab.json
ln -s ../side/vocab.json base/
"$LORAFOLD" merge base -a adapter -o weights --overwrite -q
echo "$?"
"$LORAFOLD" merge base -a adapter -o side --overwrite -q
echo "$?"
cat adapter/*.safetensors base/vocab.json >/dev/null

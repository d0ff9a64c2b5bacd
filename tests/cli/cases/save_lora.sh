# The adapter as PEFT spells it, without its base, and a directory that can be verified and inspected.
python3 "$CLI_TESTS/tiny_model.py" base adapter || exit 77
python3 - <<'EOF'
import pathlib
path = pathlib.Path("adapter/adapter_model.safetensors")
odd = path.read_bytes().replace(b"base_model.model.", b"_orig_mod.module.")  # of the same length
assert odd != path.read_bytes()
path.write_bytes(odd)
EOF
rm -r base
"$LORAFOLD" merge --save-method lora -a adapter -o out --dtype bf16 2>messages | head -n 1 || exit
sed '/^memory/,$d; s/ taken from there: .*/ taken from there: .../' messages
ls out
"$LORAFOLD" verify out -q && "$LORAFOLD" inspect out --tensors

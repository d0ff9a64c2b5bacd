[ ! -e /dev/nvidiactl ] || { echo "there is a GPU"; exit 77; }
python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" merge base -a adapter -o out --device cuda

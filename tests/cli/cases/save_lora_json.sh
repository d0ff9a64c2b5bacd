# The plan of an adapter whose base is not here, for programs.
python3 "$CLI_TESTS/tiny_model.py" base adapter || exit 77
rm -r base
"$LORAFOLD" plan --save-method lora -a adapter --json | grep '"type":"plan"' | cut -d, -f1-8

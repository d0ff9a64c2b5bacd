# Commands with it are offered for copying.
python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" plan 'org/name@v;curl${IFS}x|sh' -a adapter

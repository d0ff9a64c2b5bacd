python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" plan base -a adapter | grep '^device'

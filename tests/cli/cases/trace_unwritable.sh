python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" merge base -a adapter -o out --trace nowhere/trace.json -q; status=$?
[ ! -e out ] && [ ! -e out.partial ] || echo "something is left"
exit $status

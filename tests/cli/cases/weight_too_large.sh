# A weight that makes the scale infinite is refused before anything is written.
python3 "$CLI_TESTS/tiny_model.py" base adapter || exit 77
"$LORAFOLD" merge base -a adapter:1e300 -o out -q
status=$?
ls -A
exit "$status"

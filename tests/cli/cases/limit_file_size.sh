# A limit of the file size is an error like a full disk, and leaves nothing behind.
python3 "$CLI_TESTS/tiny_model.py" base adapter || exit 77
(ulimit -f 4 && "$LORAFOLD" merge base -a adapter -o out -q)
status=$?
ls -A
exit "$status"

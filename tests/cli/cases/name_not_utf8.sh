# Names of files may be any bytes; what is written in JSON is UTF-8 all the same.
python3 "$CLI_TESTS/tiny_model.py" base adapter || exit 77
name=$'b\xff\n"'
mv base "$name" 2>/dev/null || { echo "this file system takes UTF-8 names only"; exit 77; }
"$LORAFOLD" plan "$name" -a adapter -o "$name out" --json | iconv -f UTF-8 -t UTF-8 >/dev/null || exit 1
"$LORAFOLD" merge "$name" -a adapter -o "$name out" --json | iconv -f UTF-8 -t UTF-8 >/dev/null || exit 1
"$LORAFOLD" verify "$name out" -q

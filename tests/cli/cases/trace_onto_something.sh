python3 "$CLI_TESTS/tiny_model.py" base adapter
for file in base/*.safetensors; do break; done
sum=$(cksum <"$file")
"$LORAFOLD" merge base -a adapter -o out -q --trace "$file"
status=$?
[ "$sum" = "$(cksum <"$file")" ] || echo "the base is gone"
echo x >notes
"$LORAFOLD" merge base -a adapter -o out -q --trace notes && echo "written over"
"$LORAFOLD" merge base -a adapter -o out -q --trace . && echo "a trace in the place of a directory"
[ ! -e out ] && [ ! -e out.partial ] || echo "something is left"
: >trace.json
for again in 1 2; do # an empty file, and an earlier trace
    "$LORAFOLD" merge base -a adapter -o out$again -q --trace trace.json || echo "not written"
done
"$LORAFOLD" merge base -a adapter -o out3 -q --trace /dev/null || echo "not written"
exit $status

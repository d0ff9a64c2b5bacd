python3 "$CLI_TESTS/tiny_model.py" base adapter
"$LORAFOLD" merge base -a adapter -o cpu -q --device cpu
"$LORAFOLD" merge base -a adapter -o sim -q --device sim --trace trace.json
"$LORAFOLD" merge base -a adapter -o delays -q --device sim:7 --gpu-memory 0.9
diff -r cpu sim && diff -r cpu delays
python3 - <<'END'
import json
names = {event["name"] for event in json.load(open("trace.json"))["traceEvents"] if event["ph"] == "X"}
assert {"read", "compute", "hash", "write", "upload", "kernels", "download"} <= names, names
END

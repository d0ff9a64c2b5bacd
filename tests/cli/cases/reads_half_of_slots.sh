# Not all blocks are read at once, so that disk and processors do not wait for each other in turn.
python3 "$CLI_TESTS/tiny_model.py" base adapter
python3 - <<'END'
import json, pathlib, struct
path = pathlib.Path("base/model.safetensors")
data = path.read_bytes()
length, = struct.unpack("<Q", data[:8])
header, data = json.loads(data[8:8 + length]), data[8 + length:]
rows = 40 << 20 >> 7 # 40 MiB of zeros
header["lm_head.weight"] = {"dtype": "BF16", "shape": [rows, 64],
                            "data_offsets": [len(data), len(data) + (40 << 20)]}
text = json.dumps(header).encode()
text += b" " * (-len(text) % 4096 + 4088)
with path.open("wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data)
    file.truncate(8 + len(text) + len(data) + (40 << 20))
END
"$LORAFOLD" merge base -a adapter -o out -q --memory 128MiB --trace trace.json
python3 - <<'END'
import json
events = [e for e in json.load(open("trace.json"))["traceEvents"] if e["ph"] == "X" and e["pid"] == 0]
slots = {e["tid"] for e in events}
moments = sorted(moment for e in events if e["name"] == "read"
                 for moment in [(e["ts"], 1), (e["ts"] + e["dur"], -1)])
reading = most = 0
for _, step in moments:
    reading += step
    most = max(most, reading)
assert len(slots) >= 8, slots
assert 2 <= most <= (len(slots) + 1) // 2, (most, slots)
END

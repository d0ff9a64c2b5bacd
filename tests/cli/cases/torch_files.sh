# Files of torch.save(), whole and in shards, that Python's zipfile finds sound; verify reads them.
python3 "$CLI_TESTS/tiny_model.py" base a || exit 77
check='import sys, zipfile
for name in sys.argv[1:]:
    archive = zipfile.ZipFile(name)
    print(name, archive.testzip(), *archive.namelist(), archive.read("archive/version"))'
"$LORAFOLD" merge base -a a -o one --no-safe-serialization -q && ls one && python3 -c "$check" one/*.bin
"$LORAFOLD" merge base -a a -o two --no-safe-serialization --max-shard-size 8KB --variant fp16 -q && ls two &&
    python3 -c "$check" two/*.bin
"$LORAFOLD" verify one -q && "$LORAFOLD" verify two -q && grep -E '"(safe_serialization|variant)"' two/lorafold.json
cat two/*.index.fp16.json
"$LORAFOLD" merge base -a a -o adapter --save-method lora --no-safe-serialization -q && ls adapter &&
    "$LORAFOLD" merge base -a adapter -o three -q && "$LORAFOLD" merge base -a a -o four -q &&
    cmp three/model.safetensors four/model.safetensors

# What one output has left on a device (numbers that are not finite, reported) is not the next one's.
python3 "$CLI_TESTS/tiny_model.py" base adapter
cat >jobs.json <<'END'
{"outputs": [{"name": "bad", "dtype": "f16", "adapters": [{"path": "adapter", "weight": 1e6}]},
             {"name": "good", "adapters": [{"path": "adapter"}]},
             {"name": "worse", "dtype": "f16", "adapters": [{"path": "adapter", "weight": -1e6}]},
             {"name": "twice", "adapters": [{"path": "adapter", "weight": 2}]}]}
END
"$LORAFOLD" merge base -a adapter -o good -q --device cpu
"$LORAFOLD" merge base -a adapter:2 -o twice -q --device cpu
for device in sim sim:3; do
    "$LORAFOLD" merge base --jobs jobs.json -o "out-$device" -q --threads 1 --device "$device" 2>log
    echo "status $?"
    grep -c "'bad' failed: .* becomes infinity in F16" log
    grep -c "'worse' failed: .* becomes -infinity in F16" log
    for name in good twice; do
        cmp "$name/model.safetensors" "out-$device/$name/model.safetensors"
    done
    ls "out-$device"
done

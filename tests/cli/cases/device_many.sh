# More checks, and more pieces of absmax, in one block than a stream can remember: it is waited for in between.
python3 - <<'END'
import json, os, pathlib, sys
sys.path.insert(0, os.environ["CLI_TESTS"])
from tiny_model import bf16, f32, write_safetensors

def make(name, weights, target):
    rows, cols = weights[target + ".weight"][1]
    base, adapter = pathlib.Path(name), pathlib.Path(name + "-adapter")
    base.mkdir()
    adapter.mkdir()
    write_safetensors(base / "model.safetensors", weights)
    (base / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "bfloat16"}))
    prefix = f"base_model.model.{target}"
    write_safetensors(adapter / "adapter_model.safetensors",
                      {f"{prefix}.lora_A.weight": ("F32", [1, cols], f32([0.5] * cols)),
                       f"{prefix}.lora_B.weight": ("F32", [rows, 1], f32([0.25] * rows))})
    (adapter / "adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": [target]}))

layer = "model.layers.{}.mlp.up_proj"
make("tensors", {layer.format(i) + ".weight": ("BF16", [2, 3], bf16([i, 0.5, -i, 1, 2, 3])) for i in range(1500)},
     layer.format(7))
make("infinite", {layer.format(i) + ".weight": ("BF16", [2, 3], bf16([1, 1, 1, 1, float("inf") if i == 3 else 1, 1])) for i in range(1500)},
     layer.format(7))
pieces = bf16([(i % 251 - 125) / 64 for i in range(4099)])
make("pieces", {layer.format(0) + ".weight": ("BF16", [4099, 2048], pieces * 2048)}, layer.format(0))
END
for device in cpu sim; do
    "$LORAFOLD" merge tensors -a tensors-adapter -o "tensors-$device" -q --device $device --dtype f16
    "$LORAFOLD" merge infinite -a infinite-adapter -o out -q --device $device --dtype f16
    "$LORAFOLD" merge infinite -a infinite-adapter -o "infinite-$device" -q --device $device --dtype f16 --allow-nonfinite
    "$LORAFOLD" merge pieces -a pieces-adapter -o "pieces-$device" -q --device $device --save-method merged_4bit \
        --trace trace.json
    "$LORAFOLD" merge infinite -a infinite-adapter -o out -q --device $device --save-method merged_4bit
done
diff -r tensors-cpu tensors-sim && diff -r infinite-cpu infinite-sim && diff -r pieces-cpu pieces-sim

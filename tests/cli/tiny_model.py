#!/usr/bin/env python3
"""Make a tiny bf16 base and a rank-2 adapter for it, with nothing but Python itself.

usage: tiny_model.py BASE_DIR ADAPTER_DIR
"""
import json
import pathlib
import struct
import sys

HIDDEN = 64
RANK = 2
LAYER = "model.layers.0.self_attn.q_proj"


def write_safetensors(path, tensors):
    """tensors: name -> (dtype, shape, bytes)"""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def bf16(values):
    """Cut to bf16: the values here are exact in it."""
    return b"".join(struct.pack("<f", value)[2:] for value in values)


def f32(values):
    return struct.pack(f"<{len(values)}f", *values)


def main():
    base, adapter = map(pathlib.Path, sys.argv[1:3])
    base.mkdir(parents=True)
    adapter.mkdir(parents=True)
    weight = [(i % 17 - 8) / 8 for i in range(HIDDEN * HIDDEN)]
    write_safetensors(
        base / "model.safetensors",
        {
            "model.norm.weight": ("BF16", [HIDDEN], bf16([1.0] * HIDDEN)),
            f"{LAYER}.weight": ("BF16", [HIDDEN, HIDDEN], bf16(weight)),
        },
    )
    config = {"model_type": "llama", "hidden_size": HIDDEN, "torch_dtype": "bfloat16"}
    (base / "config.json").write_text(json.dumps(config, indent=2))

    prefix = f"base_model.model.{LAYER}"
    write_safetensors(
        adapter / "adapter_model.safetensors",
        {
            f"{prefix}.lora_A.weight": ("F32", [RANK, HIDDEN], f32([0.5] * RANK * HIDDEN)),
            f"{prefix}.lora_B.weight": ("F32", [HIDDEN, RANK], f32([0.25] * HIDDEN * RANK)),
        },
    )
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": ["q_proj"],
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    main()

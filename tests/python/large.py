"""A base of 67 MB, larger than what a test budget holds, whose blocks begin and end inside tensors."""

import json
from pathlib import Path

import numpy as np

import shards

ROWS, COLUMNS, TENSORS, RANK = 2048, 2048, 8, 16
SEED = 11


def make_large(directory: Path) -> None:
    """Two shards; with scalar kernels its merge takes long enough to be interrupted."""
    generator = np.random.default_rng(SEED)
    base, adapter = directory / "base", directory / "adapter"
    base.mkdir(), adapter.mkdir()
    parts: list[dict[str, shards.Raw]] = [{}, {}]
    factors = {}
    for number in range(TENSORS):
        module = f"model.layers.{number}.self_attn.q_proj"
        bits = generator.integers(0x3C00, 0x3E00, size=ROWS * COLUMNS, dtype=np.uint16)
        parts[number * 2 // TENSORS][f"{module}.weight"] = shards.Raw("BF16", (ROWS, COLUMNS), bits.tobytes())
        for letter, shape in (("A", (RANK, COLUMNS)), ("B", (ROWS, RANK))):
            values = generator.standard_normal(shape).astype(np.float32) * 0.1
            factors[f"base_model.model.{module}.lora_{letter}.weight"] = shards.Raw("F32", shape, values.tobytes())
    shards.write_sharded(base, parts)
    shards.write_shard(adapter / "adapter_model.safetensors", factors)
    (base / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 32, "target_modules": ["q_proj"], "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    make_prepared(directory / "prepared", generator, factors, config)


def make_prepared(directory: Path, generator: np.random.Generator, factors: dict, config: dict) -> None:
    """Factors of transposed weights, with magnitudes: factors are repacked and W is read for its norms."""
    directory.mkdir()
    magnitudes = {
        name.replace("lora_A.weight", "lora_magnitude_vector"): shards.Raw(
            "F32", (ROWS,), generator.standard_normal(ROWS).astype(np.float32).tobytes())
        for name in factors if "lora_A" in name
    }
    shards.write_shard(directory / "adapter_model.safetensors", factors | magnitudes)
    config = config | {"use_dora": True, "fan_in_fan_out": True}
    (directory / "adapter_config.json").write_text(json.dumps(config))

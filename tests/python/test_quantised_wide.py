"""Quantised weights of which one element, or one column, needs more than fits a reading."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import models
import quantised
from conftest import Run

NAME = "model.layers.0.mlp.down_proj"


def write_adapter(directory: Path, rows: int, cols: int, magnitude: torch.Tensor | None) -> Path:
    generator = torch.Generator().manual_seed(5)
    stem = f"base_model.model.{NAME}"
    tensors = {
        f"{stem}.lora_A.weight": torch.randn((2, cols), generator=generator) * 0.01,
        f"{stem}.lora_B.weight": torch.randn((rows, 2), generator=generator) * 0.01,
    }
    if magnitude is not None:
        tensors[f"{stem}.lora_magnitude_vector"] = magnitude
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["down_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(config | {"use_dora": magnitude is not None}))
    return directory


def test_dora_on_columns_longer_than_a_reading(lorafold: Run, tmp_path: Path):
    """AWQ lies transposed, and has one word of each of 73,728 lines in a column: 288 KiB."""
    rows, cols = 8, 73728
    weight = torch.randn((rows, cols), generator=torch.Generator().manual_seed(4)) * 0.05
    parts, decoded = quantised.awq(32)(weight.to(torch.bfloat16))
    stored = {f"{NAME}{end}": part for end, part in parts.items()}
    quantised.write(tmp_path / "awq", stored, {"quantization_config": quantised.AWQ}, False)
    quantised.write(tmp_path / "plain", {f"{NAME}.weight": decoded}, {}, False)
    adapter = write_adapter(tmp_path / "adapter", rows, cols, torch.rand(rows) + 0.5)
    for base in ("awq", "plain"):
        lorafold("merge", tmp_path / base, "-a", adapter, "-o", tmp_path / f"{base}-out", "--dtype", "f32")
    ours = models.load_tensors(tmp_path / "awq-out")[f"{NAME}.weight"]
    plain = models.load_tensors(tmp_path / "plain-out")[f"{NAME}.weight"]
    # The decoded weight of the plain base is rounded to 16 bits.
    torch.testing.assert_close(ours, plain, rtol=2**-7, atol=1e-6)


def test_more_zero_points_of_one_weight_than_are_read(lorafold: Run, tmp_path: Path):
    """GPTQ in groups of one input: a column of 65,544 groups has as many words of zero points."""
    cols = 65544
    stored = {
        f"{NAME}.qweight": torch.zeros((cols // 8, 1), dtype=torch.int32),
        f"{NAME}.qzeros": torch.zeros((cols, 1), dtype=torch.int32),
        f"{NAME}.scales": torch.ones((cols, 1), dtype=torch.float16),
    }
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 1, "desc_act": False}}
    quantised.write(tmp_path / "base", stored, config, False)
    adapter = write_adapter(tmp_path / "adapter", 1, cols, None)
    done = lorafold("merge", tmp_path / "base", "-a", adapter, "-o", tmp_path / "out", status=3)
    assert NAME in done.stderr and "scales or zero points for one weight" in done.stderr
    assert not (tmp_path / "out").exists()

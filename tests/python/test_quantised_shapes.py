"""Quantised weights of awkward shapes, with blocks of zeros and one huge value, in every scheme."""

from pathlib import Path

import pytest
import torch

import quantised
from quantised_schemes import SCHEMES
from test_quantised_bases import probe, same_tensors

# By the columns of which a scheme can make something: any, or whole groups or words of so many.
SHAPES = {
    1: [(33, 81), (40, 96), (96, 80), (48, 4304), (1, 1)],
    16: [(48, 96), (96, 80), (48, 4304)],
    32: [(32, 96), (96, 4320)],
    64: [(40, 192), (96, 4352)],
}


def columns_of(name: str) -> int:
    """The least that `name` can be cut to, of SHAPES."""
    if name.endswith("_storage"):
        return 16
    if name.startswith(("nf4", "fp4", "int8", "fp8")) and name != "fp4_deepseek":
        return 1
    if name.endswith(("_tensor", "_channel", "_block", "int8_zero_points", "w8a16_zero_points")):
        return 1
    if name in ("nvfp4_modelopt", "ct_nvfp4", "ct_fp8_group", "ct_w2a16", "gptq_2"):
        return 16
    if name.endswith("_8") or name in ("ct_w8a16", "hqq_6", "hqq_3_f16", "hqq_4_f16", "mlx_4", "mlx_3", "mlx_6"):
        return 64
    return 32


def weight_of(shape: tuple[int, int], seed: int) -> torch.Tensor:
    """A row and blocks of zeros, a block with one value that dwarfs the others, and negative zeros."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.05
    if shape[0] > 8:
        weight[3] = 0
        weight[5, : shape[1] // 2] = -0.0
        weight[-1, -1] = 3e4
    return weight.to(torch.bfloat16)


@pytest.mark.parametrize("name", SCHEMES)
def test_shapes(name: str, tmp_path: Path):
    scheme = SCHEMES[name]
    if scheme.package:
        pytest.importorskip(scheme.package)
    stored, expected = {}, {}
    for number, shape in enumerate(SHAPES[columns_of(name)]):
        parts, expected[f"m.{number}_proj.weight"] = scheme.pack(weight_of(shape, number))
        stored |= {f"m.{number}_proj{end}": part for end, part in parts.items()}
    config = {"dtype": "bfloat16"} | ({scheme.config_key: scheme.config} if scheme.config else {})
    quantised.write(tmp_path / "base", stored, config, True, scheme.extra)
    _, got = probe(tmp_path / "base", tmp_path / "decoded.safetensors")
    same_tensors(got, expected)


def test_ragged_blocks_of_128(tmp_path: Path):
    """kv_a_proj_with_mqa of DeepSeek-V3: 4.5 blocks of rows."""
    parts, expected = quantised.fp8((128, 128), torch.float32, ".weight_scale_inv")(weight_of((576, 7168), 3))
    assert parts[".weight_scale_inv"].shape == (5, 56)
    stored = {f"m.kv_a_proj_with_mqa{end}": part for end, part in parts.items()}
    quantised.write(tmp_path / "base", stored, {"quantization_config": quantised.block_config(128, 128)}, True)
    _, got = probe(tmp_path / "base", tmp_path / "decoded.safetensors")
    same_tensors(got, {"m.kv_a_proj_with_mqa.weight": expected})

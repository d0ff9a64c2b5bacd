"""Experts in one tensor or one by one, in the base and in the adapter, in every combination."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import formula
import joining
import models
import shards
from conftest import Run
from test_architectures import ARCHITECTURES, Architecture, make


def fused_base(architecture: Architecture, directory: Path) -> None:
    """The same model as one file with the names and the fused experts of the model in memory."""
    model = architecture.load(directory / "base")
    shutil.copytree(directory / "base", directory / "fused")
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    models.save_file(tensors, directory / "fused" / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_fused_bases_give_the_same_model(name: str, lorafold: Run, tmp_path: Path):
    architecture = ARCHITECTURES[name]
    make(architecture, tmp_path)
    fused_base(architecture, tmp_path)
    assert any(key.endswith("experts.gate_up_proj") for key in models.load_tensors(tmp_path / "fused"))
    for base in ("base", "fused"):
        lorafold("merge", tmp_path / base, "-a", tmp_path / "adapter", "-o", tmp_path / f"out-{base}")
    left, right = (architecture.load(tmp_path / f"out-{base}").state_dict() for base in ("base", "fused"))
    assert left.keys() == right.keys()
    for key, tensor in left.items():
        assert torch.equal(tensor, right[key]), key


def swap_factors(adapter: Path, experts: int) -> int:
    """PEFT up to 0.18 wrote A over the axis of [E, d1, d2] that 0.19 writes B over, and B over the other."""
    path = adapter / "adapter_model.safetensors"
    tensors = models.load_file(path)
    swapped = 0
    for name, a in list(tensors.items()):
        if re.search(r"\.experts(\.base_layer)?\.lora_A\.weight$", name):
            other = name.replace(".lora_A.", ".lora_B.")
            b, rank = tensors[other], a.shape[0] // experts
            rows = b.reshape(b.shape[0], rank, experts).permute(2, 1, 0)  # B's columns are sorted by rank
            columns = a.reshape(experts, rank, a.shape[1]).permute(2, 1, 0)
            tensors[name] = rows.reshape(a.shape[0], -1).contiguous()
            tensors[other] = columns.reshape(a.shape[1], -1).contiguous()
            swapped += 1
    models.save_file(tensors, path, metadata={"format": "pt"})
    return swapped


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_experts_of_another_version_of_peft(name: str, lorafold: Run, tmp_path: Path):
    make(ARCHITECTURES[name], tmp_path)
    shutil.copytree(tmp_path / "adapter", tmp_path / "swapped")
    assert swap_factors(tmp_path / "swapped", experts=4) == 4  # two layers, two parameters
    for adapter in ("adapter", "swapped"):
        lorafold("merge", tmp_path / "base", "-a", tmp_path / adapter, "-o", tmp_path / f"out-{adapter}")
    assert shards.read_model(tmp_path / "out-adapter") == shards.read_model(tmp_path / "out-swapped")


def test_experts_one_by_one(lorafold: Run, tmp_path: Path):
    """An adapter of the time when each expert was a module, on a base that still has them one by one."""
    make(ARCHITECTURES["qwen3_moe"], tmp_path)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    before = models.load_tensors(base)
    generator = torch.Generator().manual_seed(9)
    factors = {}
    for name, weight in before.items():
        if ".experts." in name:
            for letter, shape in (("A", (4, weight.shape[1])), ("B", (weight.shape[0], 4))):
                key = f"base_model.model.{name.removesuffix('.weight')}.lora_{letter}.weight"
                factors[key] = torch.randn(shape, generator=generator) * 0.15
    assert len(factors) == 2 * 2 * 4 * 3  # factors, layers, experts, projections
    models.save_file(factors, adapter / "adapter_model.safetensors")
    names = ["gate_proj", "up_proj", "down_proj"]
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 7, "target_modules": names}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    lorafold("merge", base, "-a", adapter, "-o", out)
    folded = formula.evaluate(joining.join(before, [(adapter, 1.0)]))
    after = models.load_tensors(out)
    assert len(folded) == len(factors) // 2 and after.keys() == before.keys()
    for name, tensor in before.items():
        assert name in folded or torch.equal(after[name], tensor), name
    for name, exact in folded.items():
        torch.testing.assert_close(after[name].double(), torch.from_numpy(exact), rtol=1e-6, atol=1e-6)
    fused_base(ARCHITECTURES["qwen3_moe"], tmp_path)
    lorafold("merge", tmp_path / "fused", "-a", adapter, "-o", tmp_path / "out-fused")
    left, right = (ARCHITECTURES["qwen3_moe"].load(tmp_path / name).state_dict() for name in ("out", "out-fused"))
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name

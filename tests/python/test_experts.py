"""Live tests: tiny mixtures of experts by transformers, adapters by PEFT, merged, joined apart, and run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import moe_models
import models
import reference
from conftest import Run

Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]

BOTH = {"target_modules": ["q_proj", "o_proj"], "target_parameters": moe_models.PARAMETERS}
ADAPTERS = {
    "parameters": BOTH,
    "gate_up": BOTH | {"target_parameters": ["experts.gate_up_proj"]},
    "down": BOTH | {"target_parameters": ["down_proj"], "use_rslora": True},
    "router": BOTH | {"target_parameters": ["gate.weight", "router.weight", *moe_models.PARAMETERS]},
    "patterns": BOTH
    | {
        "rank_pattern": {r".*\.gate_up_proj": 6, "layers.1.mlp.experts.down_proj": 2},
        "alpha_pattern": {r".*\.down_proj": 7},
    },
}
# PEFT writes experts and router as parameters for these, without being told.
ALL_LINEAR = {"target_modules": "all-linear"}
CASES = [
    *((family, kind) for family in moe_models.FAMILIES for kind in ("parameters", "router")),
    *((family, kind) for family in ("mixtral", "gpt_oss", "llama4_text") for kind in ("gate_up", "down", "patterns")),
    *((family, "all-linear") for family in sorted(moe_models.SINGLE)),
]


def check_bits(base: Path, adapter: Path, out: Path, grouped: bool = False) -> None:
    """Every tensor as the joiner says, bit for bit, and nothing else changed."""
    before, after = models.load_tensors(base), models.load_tensors(out)
    assert after.keys() == before.keys()
    expected = dict(before)
    names, wide = set(), {}
    for part in moe_models.parts_of(before, adapter, grouped):
        names.add(part.name)
        whole = wide.setdefault(part.name, before[part.name].float().clone())
        target = whole if part.expert is None else whole[part.expert]
        target.copy_(reference.fold(target, [part.delta]))
    for name, tensor in wide.items():
        expected[name] = tensor.to(before[name].dtype)
    for name, tensor in after.items():
        assert torch.equal(tensor, expected[name]), name
        assert torch.equal(tensor, before[name]) == (name not in names), name


def check_logits(base: Path, adapter: Path, out: Path) -> None:
    """The merged model does what base and adapter do side by side, which differs from the base."""
    peft_model = moe_models.peft.PeftModel.from_pretrained(moe_models.load(base, torch.float32), adapter).eval()
    left, right = models.logits(moe_models.load(out, torch.float32)), models.logits(peft_model)
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4 * right.abs().max().item())
    plain = models.logits(moe_models.load(base, torch.float32))
    assert (left - plain).abs().max() > 0.05 * right.abs().max()


@pytest.mark.parametrize(("family", "kind"), CASES, ids=["-".join(case) for case in CASES])
def test_every_family(family: str, kind: str, lorafold: Run, tmp_path: Path):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base(family, base, torch.float32)
    moe_models.make_adapter(base, adapter, **ADAPTERS.get(kind, ALL_LINEAR))
    lorafold("merge", base, "-a", adapter, "-o", out)
    check_bits(base, adapter, out)
    check_logits(base, adapter, out)


@pytest.mark.parametrize("family", moe_models.FAMILIES)
def test_every_family_in_bf16(family: str, lorafold: Run, tmp_path: Path):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base(family, base, torch.bfloat16)
    moe_models.make_adapter(base, adapter, **BOTH)
    lorafold("merge", base, "-a", adapter, "-o", out)
    check_bits(base, adapter, out)


def test_qwen3_vl_moe_as_published(lorafold: Run, tmp_path: Path):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base("qwen3_vl_moe", base, torch.float32)
    moe_models.rewrite_base(base, moe_models.transpose_experts)
    moe_models.make_adapter(base, adapter, **BOTH)
    lorafold("merge", base, "-a", adapter, "-o", out)
    check_bits(base, adapter, out)
    check_logits(base, adapter, out)


@pytest.mark.parametrize("kind", ["parameters", "all-linear"])
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_fused_base(family: str, kind: str, lorafold: Run, tmp_path: Path):
    """Families whose published files hold expert by expert, saved as transformers 5 holds them."""
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base(family, base, torch.float32)
    moe_models.rewrite_base(base, moe_models.fuse)
    moe_models.make_adapter(base, adapter, **ADAPTERS.get(kind, ALL_LINEAR))
    lorafold("merge", base, "-a", adapter, "-o", out)
    check_bits(base, adapter, out)
    check_logits(base, adapter, out)


@pytest.mark.parametrize("change", [None, moe_models.fuse], ids=["single", "fused"])
@pytest.mark.parametrize("spelling", [moe_models.W, moe_models.GATE_UP_DOWN], ids=lambda words: words[0])
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_single_experts_of_an_adapter(
    family: str, spelling: tuple[str, ...], change: Change | None, lorafold: Run, tmp_path: Path
):
    """Adapters made with transformers 4; PEFT converts them if they are spelled as the model is."""
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base(family, base, torch.float32)
    moe_models.make_single_adapter(adapter, [0, 1] if family == "mixtral" else [1], spelling)
    if change:
        moe_models.rewrite_base(base, change)
    lorafold("merge", base, "-a", adapter, "-o", out)
    check_bits(base, adapter, out)
    if (family == "mixtral") == (spelling[0] == "w1"):
        check_logits(base, adapter, out)


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_vl_moe"])
def test_single_experts_on_transposed_ones(family: str, lorafold: Run, tmp_path: Path):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base(family, base, torch.bfloat16)
    moe_models.make_single_adapter(adapter, [1], moe_models.GATE_UP_DOWN)
    if family == "qwen3_vl_moe":
        moe_models.rewrite_base(base, moe_models.transpose_experts)
    lorafold("merge", base, "-a", adapter, "-o", out)
    check_bits(base, adapter, out)


@pytest.mark.parametrize("way", ["option", "marker"])
def test_columns_grouped_by_expert(way: str, lorafold: Run, tmp_path: Path):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base("qwen3_moe", base, torch.bfloat16)
    moe_models.make_adapter(base, adapter, **BOTH)
    if way == "marker":
        moe_models.edit_config(adapter, lora_B_layout="grouped_by_expert")
    options = ["--lora-b-layout", "expert-major"] if way == "option" else []
    lorafold("merge", base, "-a", adapter, "-o", out, *options)
    check_bits(base, adapter, out, grouped=True)


def test_columns_of_unknown_order(lorafold: Run, tmp_path: Path, nothing_left: None):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base("qwen3_moe", base, torch.bfloat16)
    moe_models.make_adapter(base, adapter, **BOTH)
    moe_models.edit_config(adapter, auto_mapping={"unsloth_fixed": True})
    done = lorafold("merge", base, "-a", adapter, "-o", out, status=3)
    assert "--lora-b-layout" in done.stderr

"""Real tiny models of several families, against PEFT's own merge of the same adapter."""

from pathlib import Path

import pytest
import torch

import models
import reference
import shards
from conftest import Run

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def make_pair(directory: Path, family: str, dtype: torch.dtype, shard_bytes: str = "5GB", **lora: object) -> None:
    model = models.from_config(models.FAMILIES[family](), dtype)
    model.save_pretrained(directory / "base", max_shard_size=shard_bytes)
    options = {"r": 6, "lora_alpha": 10, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | lora
    models.make_adapter(directory / "base", directory / "adapter", torch.float32, seed=3, **options)


def check_definition(base: Path, out: Path, adapters: list[tuple[Path, float]]) -> None:
    """Targets as the reference gives them, everything else byte for byte."""
    deltas = models.deltas_of(adapters)
    before, after = shards.read_model(base), shards.read_model(out)
    before_tensors, after_tensors = models.load_tensors(base), models.load_tensors(out)
    assert after.keys() == before.keys()
    assert deltas.keys() <= after.keys()
    for name in after:
        if name in deltas:
            expected = reference.fold(before_tensors[name], deltas[name])
            assert torch.equal(after_tensors[name], expected), name
            assert not torch.equal(after_tensors[name], before_tensors[name]), name
        else:
            assert after[name] == before[name], name


def check_against_peft(base: Path, adapter: Path, out: Path, dtype: torch.dtype) -> None:
    """Nearly all elements equal PEFT's, the others within the bound; the logits follow the weights."""
    merged = models.peft_merged_model(base, adapter, dtype)
    theirs, ours = merged.state_dict(), models.load_tensors(out)
    deltas = models.deltas_of([(adapter, 1.0)])
    before = models.load_tensors(base)
    same = total = 0
    for name in deltas:
        apart = (ours[name].double() - theirs[name].double()).abs().numpy()
        assert (apart <= reference.error_bound(before[name], deltas[name])).all(), name
        same += int(torch.eq(ours[name], theirs[name]).sum())
        total += ours[name].numel()
    if dtype != torch.float32:  # in fp32 another order of the sums shows in the last bit everywhere
        assert same / total >= 0.9999
    left, right = models.logits(models.load(out, dtype)), models.logits(merged)
    if same == total:
        assert torch.equal(left, right)
    else:
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-3 * right.abs().max().item())


@pytest.mark.parametrize("family", models.FAMILIES)
def test_every_family_equals_peft(family: str, lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, family, torch.bfloat16, shard_bytes="60KB")
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out)
    shards.check_index(out)
    check_definition(base, out, [(adapter, 1.0)])
    check_against_peft(base, adapter, out, torch.bfloat16)


@pytest.mark.parametrize("shard_bytes", ["5GB", "40KB"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype_equals_peft(dtype: torch.dtype, shard_bytes: str, lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", dtype, shard_bytes)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out)
    assert (out / "model.safetensors").exists() == (shard_bytes == "5GB")
    check_definition(base, out, [(adapter, 1.0)])
    check_against_peft(base, adapter, out, dtype)


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 1},
        {"r": 64, "use_rslora": True},
        {"r": 70, "lora_alpha": 33},
        {"r": 4, "rank_pattern": {"q_proj|k_proj": 9, r"layers\.[01]\.mlp\.up_proj": 2}},
        {"r": 4, "alpha_pattern": {"^model.layers.1.self_attn.v_proj": 31, ".*o_proj": 1.5}},
        {"r": 3, "target_modules": r"model\.layers\.\d+\.(self_attn\.[qk]_proj|mlp\.down_proj)"},
        {"r": 3, "target_modules": "all-linear", "exclude_modules": ["k_proj"]},
        {"r": 3, "target_modules": ["v_proj"], "layers_to_transform": [1]},
    ],
    ids=lambda lora: "-".join(lora),
)
def test_every_setting_equals_peft(lora: dict, lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16, **lora)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out)
    check_definition(base, out, [(adapter, 1.0)])
    check_against_peft(base, adapter, out, torch.bfloat16)


@pytest.mark.parametrize("way", [["--io", "threads"], ["--direct", "off"], ["--kernels", "scalar"], ["--threads", "1"]])
def test_every_way_gives_the_same_bytes(way: list[str], lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "qwen2", torch.bfloat16, "50KB", r=65)
    lorafold("merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", tmp_path / "out", *way)
    check_definition(tmp_path / "base", tmp_path / "out", [(tmp_path / "adapter", 1.0)])


@pytest.mark.parametrize(
    "options",
    [[], ["--dtype", "f32"], ["--dtype", "f16"], ["--max-shard-size", "20MB"], ["--memory", "48MiB", "--threads", "3"]],
    ids=["keep", "f32", "f16", "cut", "small"],
)
def test_tensors_of_several_blocks(options: list[str], lorafold: Run, large: Path, tmp_path: Path):
    base, adapter, out = large / "base", large / "adapter", tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out, *options)
    shards.check_index(out)
    deltas = models.deltas_of([(adapter, 1.0)])
    before, after = models.load_tensors(base), models.load_tensors(out)
    dtype = DTYPES.get(options[1]) if options[:1] == ["--dtype"] else None
    assert after.keys() == before.keys()
    for name, [delta] in deltas.items():
        for rows in (slice(0, 20), slice(1014, 1034), slice(2028, 2048)):  # a block ends after row 1023
            part = reference.Delta(delta.a, delta.b[rows], delta.scale)
            assert torch.equal(after[name][rows], reference.fold(before[name][rows], [part], dtype)), (name, rows)
        a, b = torch.from_numpy(delta.a).double(), torch.from_numpy(delta.b).double()
        plain = before[name].double() + delta.scale * (b @ a)
        torch.testing.assert_close(after[name].double(), plain, rtol=2**-8, atol=1e-5)


def test_two_adapters_with_weights(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    second = tmp_path / "second"
    models.make_adapter(
        tmp_path / "base", second, torch.bfloat16, seed=9, r=2, lora_alpha=3, target_modules=["q_proj", "up_proj"]
    )
    base, first, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    lorafold("merge", base, "-a", f"{first}:0.3", "-a", f"{second}:-2", "-o", out)
    check_definition(base, out, [(first, 0.3), (second, -2.0)])


def test_merged_model_equals_the_adapter_at_work(lorafold: Run, tmp_path: Path):
    """Not only PEFT's merge: also base and adapter side by side, as trained."""
    make_pair(tmp_path, "llama", torch.float32)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out)
    left = models.logits(models.load(out, torch.float32))
    right = models.logits(models.peft_unmerged_model(base, adapter, torch.float32))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4 * right.abs().max().item())
    plain = models.logits(models.load(base, torch.float32))
    assert (left - plain).abs().max() > 0.1 * right.abs().max()

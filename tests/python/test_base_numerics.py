"""--base-numerics and --original-base: which numbers of a base are folded into."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

import bnb4
import models
import reference
from conftest import Run
from test_directory import into_cache
from test_quantised_bases import make_base, same_tensors

TARGETS = ["q_proj", "v_proj", "down_proj"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

needs_bnb = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="the Python package bitsandbytes is missing"
)


def make_plain(directory: Path, dtype: torch.dtype = torch.bfloat16) -> tuple[Path, Path]:
    models.tiny_llama(dtype, 64, 128, 96, 2).save_pretrained(directory / "plain", max_shard_size="50KB")
    adapter = directory / "adapter"
    models.make_adapter(directory / "plain", adapter, torch.float32, 3, r=4, lora_alpha=6, target_modules=TARGETS)
    return directory / "plain", adapter


def expected_of(tensors: dict[str, torch.Tensor], adapter: Path) -> dict[str, torch.Tensor]:
    deltas = models.deltas_of([(adapter, 1.0)])
    return {name: reference.fold(tensor, deltas[name]) if name in deltas else tensor for name, tensor in tensors.items()}


def taken_through(weight: torch.Tensor) -> torch.Tensor:
    """Quantised to NF4 without nesting, and decoded to its own dtype."""
    return bnb4.decode(bnb4.quantised("w", weight, "nf4", False), "w")


def numerics_of(out: Path) -> str:
    return json.loads((out / "lorafold.json").read_text())["options"]["base_numerics"]


@pytest.mark.parametrize("memory", ["128MiB", "64MiB"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_nf4_roundtrip(dtype: torch.dtype, memory: str, lorafold: Run, tmp_path: Path):
    plain, adapter = make_plain(tmp_path, dtype)
    out = tmp_path / "out"
    lorafold("merge", plain, "-a", adapter, "-o", out, "--base-numerics", "nf4-roundtrip", "--memory", memory)
    tensors = models.load_tensors(plain)
    through = {name: taken_through(tensor) if name.endswith("_proj.weight") else tensor
               for name, tensor in tensors.items()}  # fmt: skip
    same_tensors(models.load_tensors(out), expected_of(through, adapter))
    assert numerics_of(out) == "nf4-roundtrip"


def test_nf4_roundtrip_and_4_bits_and_skip(lorafold: Run, tmp_path: Path):
    plain, adapter = make_plain(tmp_path)
    out = tmp_path / "out"
    lorafold("merge", plain, "-a", adapter, "-o", out, "--base-numerics", "nf4-roundtrip", "--save-method",
             "merged_4bit", "--skip", "layers.1.mlp")  # fmt: skip
    through = {name: taken_through(tensor) if name.endswith("_proj.weight") and "1.mlp" not in name else tensor
               for name, tensor in models.load_tensors(plain).items()}  # fmt: skip
    encoded = bnb4.check(out, expected_of(through, adapter))
    assert len(encoded) == 11


def test_nf4_roundtrip_of_odd_rows_with_dora(lorafold: Run, tmp_path: Path):
    """Blocks that run through rows; norms are of what went through NF4."""
    import peft
    from safetensors.torch import load_file, save_file

    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    models.tiny_llama(torch.float32, 80, 112, 96, 1).save_pretrained(base)
    models.make_adapter(base, adapter, torch.float32, 3, r=4, use_dora=True, target_modules=["up_proj", "down_proj"])
    lorafold("merge", base, "-a", adapter, "-o", out, "--base-numerics", "nf4-roundtrip")
    through = {name: taken_through(tensor) if name.endswith("_proj.weight") else tensor
               for name, tensor in load_file(base / "model.safetensors").items()}  # fmt: skip
    shutil.copytree(base, tmp_path / "through")
    save_file(through, tmp_path / "through" / "model.safetensors", metadata={"format": "pt"})
    lorafold("merge", tmp_path / "through", "-a", adapter, "-o", tmp_path / "expected")
    same_tensors(models.load_tensors(out), models.load_tensors(tmp_path / "expected"))
    assert isinstance(peft.PeftConfig.from_pretrained(adapter), peft.LoraConfig)


def name_base(adapter: Path, name: str) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name}))


@needs_bnb
@pytest.mark.parametrize("ending", ["-bnb-4bit", "-unsloth-bnb-4bit"])
def test_the_original_in_the_cache(ending: str, lorafold: Run, tmp_path: Path):
    plain, adapter = make_plain(tmp_path)
    base, decoded = make_base(tmp_path, "nf4_nested", split=True)
    original = expected_of(models.load_tensors(plain), adapter)
    dequantised = expected_of(decoded, adapter)
    cache = tmp_path / "cache"
    into_cache(base, cache, f"tiny/model{ending}", COMMIT)
    name_base(adapter, f"tiny/model{ending}")
    environment = {"HF_HUB_CACHE": str(cache)}

    def merge(name: str, *options: str) -> dict[str, torch.Tensor]:
        lorafold("merge", *options, "-a", adapter, "-o", tmp_path / name, environment=environment)
        return models.load_tensors(tmp_path / name)

    same_tensors(merge("alone"), dequantised)
    assert numerics_of(tmp_path / "alone") == "dequantised"
    done = lorafold("merge", "-a", adapter, "-o", tmp_path / "x", "--base-numerics", "original", status=2,
                    environment=environment)  # fmt: skip
    assert "--original-base" in done.stderr and not (tmp_path / "x").exists()
    into_cache(plain, cache, "tiny/model", COMMIT)
    same_tensors(merge("auto"), original)
    assert numerics_of(tmp_path / "auto") == "original"
    manifest = json.loads((tmp_path / "auto" / "lorafold.json").read_text())
    assert manifest["base"]["name"] == "tiny/model"
    assert "quantization_config" not in (tmp_path / "auto" / "config.json").read_text()
    same_tensors(merge("told", "--base-numerics", "dequantised"), dequantised)
    same_tensors(merge("given", f"tiny/model{ending}"), dequantised)
    same_tensors(merge("asked", f"tiny/model{ending}", "--base-numerics", "original"), original)
    merge("through", "--base-numerics", "nf4-roundtrip", "--original-base", "tiny/model")
    assert numerics_of(tmp_path / "through") == "nf4-roundtrip"


@needs_bnb
def test_original_base_is_given(lorafold: Run, tmp_path: Path):
    plain, adapter = make_plain(tmp_path)
    base, _ = make_base(tmp_path, "nf4_nested", split=False)
    out = tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out, "--original-base", plain)
    same_tensors(models.load_tensors(out), expected_of(models.load_tensors(plain), adapter))
    name_base(adapter, "tiny/nowhere-bnb-4bit")
    lorafold("merge", "-a", adapter, "-o", out, "--original-base", plain, "--overwrite")
    same_tensors(models.load_tensors(out), expected_of(models.load_tensors(plain), adapter))


@needs_bnb
def test_refusals(lorafold: Run, tmp_path: Path, nothing_left: None):
    plain, adapter = make_plain(tmp_path)
    base, _ = make_base(tmp_path, "nf4_nested", split=False)

    def refused(*options: str | Path) -> str:
        return lorafold("merge", base, "-a", adapter, "-o", tmp_path / "out", *options, status=2).stderr

    assert "16-bit base" in refused("--base-numerics", "nf4-roundtrip")
    assert "--original-base" in refused("--base-numerics", "original")
    assert "quantised itself" in refused("--base-numerics", "original", "--original-base", base)
    assert "dequantised" in refused("--base-numerics", "dequantised", "--original-base", plain)
    assert "nowhere" in refused("--original-base", tmp_path / "nowhere")

"""The same trained model saved by Unsloth's own code and by ours: files, configuration, names and values."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import models
import package_help as help  # first: it says where the package is
import bnb4
import lorafold
import reference
import shards
from conftest import TIMEOUT_SECONDS

# Another interpreter that has Unsloth may stand in: UNSLOTH_PYTHON.
IS_HERE = all(importlib.util.find_spec(name) for name in ("unsloth", "unsloth_zoo"))
PYTHON = os.environ.get("UNSLOTH_PYTHON") or (sys.executable if IS_HERE else None)

pytestmark = pytest.mark.skipif(PYTHON is None, reason="the Python packages unsloth and unsloth_zoo are missing (tools/venv)")

# What only we write; and what of the configuration differs: which transformers wrote it is not for
# Unsloth to say, and it spells dtype as older ones did.
OURS = {"README.md", "lorafold.json", "lorafold.blocks"}


def unsloth(base: Path, adapter: Path, out: Path, method: str) -> None:
    words = [PYTHON, Path(__file__).with_name("unsloth_save.py"), base, adapter, out, method]
    done = subprocess.run(words, capture_output=True, text=True, timeout=3 * TIMEOUT_SECONDS, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def read_config(directory: Path) -> dict:
    config = json.loads((directory / "config.json").read_text())
    config.pop("transformers_version", None)
    config.pop("unsloth_version", None)
    if "torch_dtype" in config:
        config["dtype"] = config.pop("torch_dtype")
    return config


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_file()}


def make(directory: Path, dtype: torch.dtype, family: str = "llama", shard: str = "60KB", changes: dict | None = None,
         **lora: object):  # fmt: skip
    """A base with a tokenizer, and a model that was trained on it for some steps, saved by PEFT as well."""
    config = models.FAMILIES[family]()
    for name, value in ({"intermediate_size": 128} | (changes or {})).items():
        setattr(config, name, value)
    models.from_config(config, dtype).save_pretrained(directory / "base", max_shard_size=shard)
    help.tokenizer_of().save_pretrained(directory / "base")
    model = help.trained(directory / "base", dtype, **lora)
    model.save_pretrained(directory / "adapter")
    return model


CASES = {
    "bf16": ({"dtype": torch.bfloat16}, {}),
    "f16": ({"dtype": torch.float16}, {}),
    "f32": ({"dtype": torch.float32}, {}),
    "one file": ({"dtype": torch.bfloat16, "shard": "5GB"}, {}),
    "rslora": ({"dtype": torch.bfloat16}, {"use_rslora": True, "r": 9}),
    "qwen3": ({"dtype": torch.bfloat16, "family": "qwen3"}, {}),
    "tied": ({"dtype": torch.bfloat16, "changes": {"tie_word_embeddings": True}}, {}),
    "saved head": ({"dtype": torch.bfloat16}, {"modules_to_save": ["lm_head"]}),
    "dora": ({"dtype": torch.bfloat16}, {"use_dora": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_merged_16bit(name: str, tmp_path: Path):
    made, lora = CASES[name]
    model = make(tmp_path, **made, **lora)
    lorafold.save_pretrained_merged(model, tmp_path / "ours", help.tokenizer_of(), save_method="merged_16bit")
    unsloth(tmp_path / "base", tmp_path / "adapter", tmp_path / "theirs", "merged_16bit")
    assert names(tmp_path / "ours") - OURS == names(tmp_path / "theirs")
    assert read_config(tmp_path / "ours") == read_config(tmp_path / "theirs")
    ours, theirs = models.load_tensors(tmp_path / "ours"), models.load_tensors(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert {key: (one.dtype, one.shape) for key, one in ours.items()} == {
        key: (one.dtype, one.shape) for key, one in theirs.items()
    }
    if (tmp_path / "theirs" / "model.safetensors.index.json").exists():
        maps = [json.loads((tmp_path / who / "model.safetensors.index.json").read_text())["weight_map"] for who in ("ours", "theirs")]
        assert maps[0] == maps[1]
        shards.check_index(tmp_path / "ours")
    before = models.load_tensors(tmp_path / "base")
    deltas = models.deltas_of([(tmp_path / "adapter", 1.0)])
    equal = total = 0
    for key in ours:
        if key not in deltas:
            assert torch.equal(ours[key], theirs[key]), key
            continue
        apart = (ours[key].double() - theirs[key].double()).abs().numpy()
        bound = reference.error_bound(before[key], deltas[key])
        assert (apart <= (4 * bound if "use_dora" in lora else bound)).all(), key  # DoRA: norm and factor round as well
        equal += int(torch.eq(ours[key], theirs[key]).sum())
        total += ours[key].numel()
    assert total and (equal / total >= 0.9999 or made["dtype"] == torch.float32 or "use_dora" in lora), equal / total
    if made["dtype"] == torch.float32:
        help.check_same_answers(tmp_path / "ours", model, tmp_path / "base")


def test_lora(tmp_path: Path):
    model = make(tmp_path, torch.bfloat16)
    lorafold.save_pretrained_merged(model, tmp_path / "ours", help.tokenizer_of(), save_method="lora")
    unsloth(tmp_path / "base", tmp_path / "adapter", tmp_path / "theirs", "lora")
    assert names(tmp_path / "ours") - OURS == names(tmp_path / "theirs") - OURS
    ours, theirs = ((tmp_path / who / "adapter_config.json").read_text() for who in ("ours", "theirs"))
    ours, theirs = json.loads(ours), json.loads(theirs)
    for config in (ours, theirs):
        config["target_modules"] = sorted(name.rpartition(".")[2] for name in config["target_modules"])
    assert set(ours.pop("target_modules")) == set(theirs.pop("target_modules"))
    assert ours == theirs
    ours, theirs = models.load_tensors(tmp_path / "ours"), models.load_tensors(tmp_path / "theirs")
    assert ours.keys() == theirs.keys() and all(torch.equal(one, theirs[key]) for key, one in ours.items())


def test_merged_4bit(tmp_path: Path):
    """It merges onto what the live model's 4 bits say, and so do we where we are asked to."""
    for package in ("bitsandbytes", "accelerate"):
        pytest.importorskip(package)
    model = make(tmp_path, torch.bfloat16, shard="5GB")
    assert model is not None
    lorafold.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "ours", save_method="merged_4bit",
                   base_numerics="nf4-roundtrip", tokenizer=tmp_path / "base")  # fmt: skip
    unsloth(tmp_path / "base", tmp_path / "adapter", tmp_path / "theirs", "merged_4bit")
    assert names(tmp_path / "ours") - OURS == names(tmp_path / "theirs")
    ours, theirs = read_config(tmp_path / "ours"), read_config(tmp_path / "theirs")
    kept = [config["quantization_config"].pop("llm_int8_skip_modules") for config in (ours, theirs)]
    assert ours == theirs
    assert sorted(kept[0]) == ["lm_head", "model.embed_tokens"] and kept[1] == ["lm_head"]  # embeddings are never quantised
    ours, theirs = models.load_tensors(tmp_path / "ours"), models.load_tensors(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    equal = total = 0
    for key, one in ours.items():
        assert one.dtype == theirs[key].dtype, key
        if not key.endswith("_proj.weight"):
            continue
        assert one.shape == theirs[key].shape, key
        equal += int(torch.eq(one, theirs[key]).sum())
        total += one.numel()
        left, right = bnb4.decode(ours, key).float(), bnb4.decode(theirs, key).float()
        assert (left - right).abs().mean() < 0.01 * left.abs().mean(), key
    assert equal / total > 0.97  # PEFT rounds the dequantised weight, the delta and their sum to 16 bits, we round once

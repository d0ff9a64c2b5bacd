"""Adapters saved by torch.save(), as PEFT does it without safetensors, against their safetensors twins."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch

import models
import shards
from conftest import Run
from test_merge_live import make_pair

SAFE, TORCH = "adapter_model.safetensors", "adapter_model.bin"


def make_twin(directory: Path, **lora: object) -> Path:
    """`adapter` of the directory once more, in `twin`, by PEFT's own saving as a torch file."""
    make_pair(directory, "llama", torch.bfloat16, **lora)
    model = peft.PeftModel.from_pretrained(models.load(directory / "base", torch.float32), directory / "adapter")
    model.save_pretrained(directory / "twin", safe_serialization=False)
    assert (directory / "twin" / TORCH).exists() and not (directory / "twin" / SAFE).exists()
    return directory / "twin"


def save_factors(adapter: Path, change: Callable[[dict], object], **options: object) -> None:
    """The factors of an adapter, changed, in place of its weights."""
    path = adapter / (TORCH if (adapter / TORCH).exists() else SAFE)
    tensors = torch.load(path) if path.name == TORCH else models.load_file(path)
    path.unlink()
    torch.save(change(tensors), adapter / TORCH, **options)


def merged(lorafold: Run, base: Path, adapter: Path, out: Path) -> dict:
    lorafold("merge", base, "-a", adapter, "-o", out)
    return shards.read_model(out)


@pytest.mark.parametrize("lora", [{}, {"r": 70, "use_rslora": True}], ids=["plain", "wide"])
def test_twin_merges_to_the_same_bytes(lora: dict, lorafold: Run, tmp_path: Path):
    twin = make_twin(tmp_path, **lora)
    expected = merged(lorafold, tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert expected != shards.read_model(tmp_path / "base")
    assert merged(lorafold, tmp_path / "base", twin, tmp_path / "out-twin") == expected
    assert merged(lorafold, tmp_path / "base", twin / TORCH, tmp_path / "out-file") == expected


def views_of_one(tensors: dict) -> dict:
    """All factors as views of one storage, as a flattened optimizer leaves them."""
    flat = torch.cat([value.reshape(-1) for value in tensors.values()])
    places = torch.tensor([0, *(value.numel() for value in tensors.values())]).cumsum(0).tolist()
    return {name: flat[begin:begin + value.numel()].view(value.shape)
            for begin, (name, value) in zip(places, tensors.items())}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "change",
    [dict, views_of_one, lambda tensors: {name: torch.nn.Parameter(value) for name, value in tensors.items()}],
    ids=["plain", "views", "parameters"],
)
def test_what_torch_writes(change: Callable[[dict], dict], protocol: int, lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    shutil.copytree(tmp_path / "adapter", tmp_path / "twin")
    save_factors(tmp_path / "twin", change, pickle_protocol=protocol)
    expected = merged(lorafold, tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert merged(lorafold, tmp_path / "base", tmp_path / "twin", tmp_path / "out-twin") == expected


def test_more_storages_than_a_plain_archive_counts(lorafold: Run, tmp_path: Path):
    """zip64, and a memo and a directory that are large."""
    count = 33_000
    tensors = {f"base_model.model.layers.{i}.q.lora_{side}.weight": torch.ones(1, 1)
               for i in range(count) for side in "AB"}
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    torch.save(tensors, tmp_path / TORCH)
    lines = lorafold("inspect", tmp_path, "--json").stdout.splitlines()
    assert json.loads(lines[0])["modules"] == count


def test_the_last_checkpoint_is_used_and_named(lorafold: Run, tmp_path: Path):
    twin = make_twin(tmp_path)
    shutil.copytree(tmp_path / "adapter", tmp_path / "run" / "checkpoint-9")
    shutil.move(twin, tmp_path / "run" / "checkpoint-10")
    models.save_file({}, tmp_path / "run" / "checkpoint-9" / SAFE)
    done = lorafold("merge", tmp_path / "base", "-a", tmp_path / "run", "-o", tmp_path / "out")
    assert "'checkpoint-10'" in done.stderr
    expected = merged(lorafold, tmp_path / "base", tmp_path / "adapter", tmp_path / "out-adapter")
    assert shards.read_model(tmp_path / "out") == expected
    shutil.copytree(tmp_path / "adapter", tmp_path / "run" / "final")
    done = lorafold("merge", tmp_path / "base", "-a", tmp_path / "run", "-o", tmp_path / "none", status=2)
    assert "'checkpoint-10', 'checkpoint-9', 'final'" in done.stderr


class Touch:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


REFUSED: dict[str, tuple[Callable[[dict], object], dict, str]] = {
    "transposed": (lambda tensors: {name: value.t() for name, value in tensors.items()}, {}, "one after another"),
    "beside_other_things": (lambda tensors: tensors | {"epoch": 3}, {}, "'epoch' is a number"),
    "one_level_down": (lambda tensors: {"model": tensors}, {}, "'model' is a dict"),
    "before_1_6": (dict, {"_use_new_zipfile_serialization": False}, "before 1.6"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, lorafold: Run, tmp_path: Path, nothing_left: None):
    change, options, word = REFUSED[case]
    make_pair(tmp_path, "llama", torch.bfloat16)
    save_factors(tmp_path / "adapter", change, **options)
    done = lorafold("merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", tmp_path / "out", status=3)
    assert word in done.stderr and TORCH in done.stderr


def test_nothing_is_run(lorafold: Run, tmp_path: Path, nothing_left: None):
    make_pair(tmp_path, "llama", torch.bfloat16)
    save_factors(tmp_path / "adapter", lambda tensors: tensors | {"x": Touch(tmp_path / "touched")})
    done = lorafold("merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", tmp_path / "out", status=3)
    assert "'posix.system'" in done.stderr
    assert not (tmp_path / "touched").exists()

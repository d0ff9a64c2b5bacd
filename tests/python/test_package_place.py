"""Saving into a directory that exists: the model is replaced, other files stay, no mixture is ever a model."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import models
import package_help as help  # first: it says where the package is
import lorafold
import shards
from conftest import TIMEOUT_SECONDS
from lorafold._place import LOCK, WORK, Place


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return help.make_base(tmp_path / "base")


def names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def test_a_model_is_replaced_and_the_rest_stays(base: Path, tmp_path: Path):
    model, out = help.trained(base), tmp_path / "out"
    lorafold.save_pretrained_merged(model, out, help.tokenizer_of(), max_shard_size="40KB")
    assert (out / "model.safetensors.index.json").exists() and not (out / "model.safetensors").exists()
    (out / "notes").mkdir()
    for name in ("notes/mine.txt", "trainer_state.json", "other-00001-of-00002.safetensors"):
        (out / name).write_text("mine")
    help.train(model, seed=5)
    lorafold.save_pretrained_merged(model, out)
    assert not list(out.glob("model-*")) and not (out / "model.safetensors.index.json").exists()
    help.check_same_answers(out, model, base)
    (out / "tokenizer.json").stat()  # of the first save: this one brought none
    assert all((out / name).read_text() == "mine" for name in ("notes/mine.txt", "trainer_state.json"))
    assert (out / "other-00001-of-00002.safetensors").read_text() == "mine"  # no index named it
    (out / "other-00001-of-00002.safetensors").unlink()
    lorafold.save_pretrained_merged(model, out, max_shard_size="40KB")
    shards.check_index(out)
    assert not (out / "model.safetensors").exists() and not (out / WORK).exists()
    help.check_same_answers(out, model, base)
    assert lorafold.verify(out).file_count


def test_the_other_format_replaces_this_one(base: Path, tmp_path: Path):
    """transformers prefers safetensors: old ones would hide what is saved now."""
    model, out = help.trained(base), tmp_path / "out"
    for options in ({"max_shard_size": "40KB"}, {"safe_serialization": False},
                    {"safe_serialization": False, "max_shard_size": "40KB"}, {}):
        help.train(model, seed=5)
        lorafold.save_pretrained_merged(model, out, **options)
        files = [name for name in names(out) if "model" in name]
        assert {name.endswith((".bin", ".bin.index.json")) for name in files} == {"safe_serialization" in options}
        assert (len(files) > 1) == ("max_shard_size" in options)
        help.check_same_answers(out, model, base)
        assert lorafold.verify(out).file_count


def test_variants_lie_side_by_side(base: Path, tmp_path: Path):
    model, out = help.trained(base), tmp_path / "out"
    lorafold.save_pretrained_merged(model, out, dtype="float32")
    lorafold.save_pretrained_merged(model, out, dtype="float16", variant="fp16", max_shard_size="40KB")
    lorafold.save_pretrained_merged(model, out, dtype="float16", variant="fp16", safe_serialization=False)
    assert [name for name in names(out) if "model" in name] == ["model.safetensors", "pytorch_model.fp16.bin"]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out, variant="fp16", dtype=torch.float16)
    torch.testing.assert_close(help.logits(loaded.float()), help.logits(model), atol=2e-2, rtol=2e-2)
    with pytest.raises(lorafold.UsageError, match="--variant"):
        lorafold.save_pretrained_merged(model, out, variant="../x")
    with pytest.raises(lorafold.UsageError, match="holds a whole model"):
        lorafold.save_pretrained_merged(model, out, save_method="lora")


def test_an_adapter_in_the_other_format(base: Path, tmp_path: Path):
    """PEFT prefers safetensors too."""
    model, out = help.trained(base), tmp_path / "out"
    for safe in (True, False, True):
        help.train(model, seed=5)
        lorafold.save_pretrained_merged(model, out, save_method="lora", safe_serialization=safe)
        assert (out / "adapter_model.safetensors").exists() is safe and (out / "adapter_model.bin").exists() is not safe
        loaded = models.peft_unmerged_model(base, out, torch.float32)
        torch.testing.assert_close(help.logits(loaded), help.logits(model))


def test_a_second_save_is_the_same(base: Path, tmp_path: Path):
    """Nothing is folded twice."""
    model = help.trained(base)
    lorafold.save_pretrained_merged(model, tmp_path / "out")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
    lorafold.save_pretrained_merged(model, tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == before


def test_directories_are_made_and_empty_ones_taken(base: Path, tmp_path: Path):
    model = help.trained(base)
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        lorafold.save_pretrained_merged(model, out)
        assert (out / "config.json").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(lorafold.UsageError, match="is a file"):
        lorafold.save_pretrained_merged(model, tmp_path / "file")


def test_an_adapter_beside_the_model_is_refused(base: Path, tmp_path: Path):
    """Loaders would put it on top of what is merged already."""
    model = help.trained(base)
    model.save_pretrained(tmp_path / "out")
    before = names(tmp_path / "out")
    with pytest.raises(lorafold.UsageError, match="holds an adapter"):
        lorafold.save_pretrained_merged(model, tmp_path / "out")
    assert names(tmp_path / "out") == before


def test_a_model_beside_the_adapter_is_refused(base: Path, tmp_path: Path):
    model = help.trained(base)
    lorafold.save_pretrained_merged(model, tmp_path / "out")
    with pytest.raises(lorafold.UsageError, match="holds a whole model"):
        lorafold.save_pretrained_merged(model, tmp_path / "out", save_method="lora")
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_an_adapter_is_replaced(base: Path, tmp_path: Path):
    model, out = help.trained(base), tmp_path / "out"
    lorafold.save_pretrained_merged(model, out, save_method="lora")
    (out / "mine").write_text("mine")
    help.train(model, seed=5)
    lorafold.save_pretrained_merged(model, out, help.tokenizer_of(), save_method="lora")
    loaded = models.peft_unmerged_model(base, out, torch.float32)
    torch.testing.assert_close(help.logits(loaded), help.logits(model))
    assert (out / "mine").exists() and (out / "tokenizer.json").exists()


def test_a_failure_leaves_the_old_model(base: Path, tmp_path: Path):
    model, out = help.trained(base), tmp_path / "out"
    lorafold.save_pretrained_merged(model, out)
    before = {name: (out / name).read_bytes() for name in names(out)}
    with torch.no_grad():
        next(one for name, one in model.named_parameters() if "lora_B" in name).fill_(float("nan"))
    with pytest.raises(lorafold.FormatError):
        lorafold.save_pretrained_merged(model, out)
    assert {name: (out / name).read_bytes() for name in names(out)} == before


def make(directory: Path, files: dict[str, str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    return directory


def index_of(*shard_names: str) -> str:
    return json.dumps({"weight_map": {str(number): name for number, name in enumerate(shard_names)}})


OLD = {
    "config.json": "old", "model.safetensors.index.json": index_of("a.safetensors", "b.safetensors", "../outside"),
    "a.safetensors": "old", "b.safetensors": "old", "lorafold.json": "old", "mine": "old",
}  # fmt: skip
NEW = {
    "config.json": "new", "model.safetensors.index.json": index_of("b.safetensors", "c.safetensors"),
    "b.safetensors": "new", "c.safetensors": "new", "lorafold.json": "new", "1_Pooling/config.json": "new",
}  # fmt: skip


@pytest.mark.parametrize("step", range(40))
def test_no_moment_shows_a_mixture(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whenever the process dies, either one model is whole or there is no configuration."""
    make(tmp_path, {"outside": "mine"})
    out, left = make(tmp_path / "out", OLD), [step]

    class Dead(BaseException):
        pass

    def dying(function):
        def call(*arguments, **options):
            if left[0] == 0:
                raise Dead
            left[0] -= 1
            return function(*arguments, **options)

        return call

    for where, name in ((os, "replace"), (Path, "unlink"), (os, "fsync")):
        monkeypatch.setattr(where, name, dying(getattr(where, name)))
    died = False
    try:
        with Place(out, is_model=True) as place:
            built = make(place.work / "out", NEW)
            place.publish(built)
            left[0] = -1
    except Dead:
        died = True
    monkeypatch.undo()
    found = {name: (out / name).read_text() for name in names(out) if not name.startswith(WORK)}
    if "config.json" in found:
        new = found["config.json"] == "new"
        whole = NEW | {"mine": "old"} if new else OLD
        assert {name: found.get(name) for name in whole if name != "lorafold.json" or not died} == {
            name: text for name, text in whole.items() if name != "lorafold.json" or not died
        }
        if new:
            assert "a.safetensors" not in found
    assert found["mine"] == "old" and (tmp_path / "outside").read_text() == "mine"
    with Place(out, is_model=True) as place:  # the next save starts anew
        assert [path.name for path in place.work.iterdir()] == [LOCK]
        place.publish(make(place.work / "out", NEW))
    assert names(out) == sorted({*NEW, "mine"})


def test_one_process_at_a_time(tmp_path: Path):
    with Place(tmp_path, is_model=True) as place:
        with pytest.raises(lorafold.UsageError, match="another process is saving"), Place(tmp_path, is_model=True):
            pass
        assert place.work.is_dir()
    assert not list(tmp_path.iterdir())


KILLED = """
import sys, os
import lorafold
from lorafold._place import Place
with Place(sys.argv[1], is_model=True) as place:
    (place.work / "rest").write_text("rest")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_leaves_is_removed(tmp_path: Path):
    pipe = subprocess.PIPE
    words = [sys.executable, "-c", KILLED, tmp_path]
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=help.environment()) as child:
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(lorafold.UsageError, match="another process is saving"), Place(tmp_path, is_model=True):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait(TIMEOUT_SECONDS)
    assert (tmp_path / WORK / "rest").exists()
    with Place(tmp_path, is_model=True) as place:
        assert [path.name for path in place.work.iterdir()] == [LOCK]
        assert fcntl.flock(place.lock, fcntl.LOCK_EX | fcntl.LOCK_NB) is None
    assert not list(tmp_path.iterdir())

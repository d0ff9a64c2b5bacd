"""Each parameter of save_pretrained_merged and push_to_hub_merged has its effect, with a live model and the test hub."""

import ast
import importlib.util
import inspect
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import peft
import pytest
import torch

import models
import package_help as help  # first: it says where the package is
import lorafold
from conftest import ROOT
from hub_help import TOKEN, environment, running_hub
from lorafold import _save_options, _saving
from lorafold._save_options import SaveOptions

from hub import Repo, TestHub

# In the order of Unsloth's calls, so that arguments without names go where they are meant to.
SAVE = ["save_directory", "tokenizer", "save_method", "push_to_hub", "token", "is_main_process", "state_dict", "save_function",
        "max_shard_size", "safe_serialization", "variant", "save_peft_format", "tags", "temporary_location",
        "maximum_memory_usage", "datasets"]  # fmt: skip
PUSH = ["repo_id", "tokenizer", "save_method", "use_temp_dir", "commit_message", "private", "token", "max_shard_size",
        "create_pr", "safe_serialization", "revision", "commit_description", "tags", "temporary_location",
        "maximum_memory_usage", "datasets"]  # fmt: skip
# These follow, by their names alone.
MORE = {"calibration_dataset", "num_calibration_samples", "max_seq_length", "install_missing_dependencies", "dtype"}


@pytest.fixture
def model(tmp_path: Path) -> peft.PeftModel:
    return help.trained(help.make_base(tmp_path / "base"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestHub]:
    """This process and the helpers that it starts know of the test hub alone, and have no token."""
    with running_hub() as hub:
        known = environment(hub, tmp_path / "home", None, HF_HUB_OFFLINE="0")
        for name in set(os.environ) - set(known):
            monkeypatch.delenv(name)
        for name, value in known.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        yield hub


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def pushed(hub: TestHub, repo: str, reference: str = "main") -> dict[str, bytes]:
    return {path: hub.state.content(entry) for path, entry in hub.state.repos[repo].head(reference).files.items()}


def download(hub: TestHub, repo: str, into: Path) -> Path:
    into.mkdir()
    for name, data in pushed(hub, repo).items():
        (into / name).write_bytes(data)
    return into


def positional(function: Callable) -> list[str]:
    kinds = inspect.Parameter
    return [one.name for one in inspect.signature(function).parameters.values() if one.kind == kinds.POSITIONAL_OR_KEYWORD]


def test_the_order_is_the_contracts():
    assert positional(lorafold.save_pretrained_merged) == ["model", *SAVE]
    assert positional(lorafold.push_to_hub_merged) == ["model", *PUSH]
    assert {one.name for one in fields(SaveOptions)} >= MORE


def test_unsloth_has_no_other_parameters():
    """The package that is replaced, as it is installed: its source is read, it is not imported."""
    found = importlib.util.find_spec("unsloth")
    if found is None:
        pytest.skip("the Python package unsloth is missing (tools/venv)")
    tree = ast.parse((Path(found.origin).parent / "save.py").read_text())
    theirs = {one.name: [word.arg for word in one.args.args] for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
    for name, ours in (("save_pretrained_merged", SAVE), ("push_to_hub_merged", PUSH)):
        parameters = theirs[f"unsloth_generic_{name}"][1:]
        assert parameters[: len(ours)] == ours and set(parameters[len(ours) :]) <= MORE


def test_every_parameter_is_documented():
    text = (ROOT / "docs" / "PYTHON.md").read_text()
    table = text[text.index("| parameter |") :].split("\n\n")[0]
    told = {word for row in table.splitlines() for word in re.findall(r"`(\w+)(?:=\w+)?`", row.split("|")[1])}
    internal = {"no_local"}
    assert told == {*SAVE, *PUSH, *(one.name for one in fields(SaveOptions)), "progress"} - internal
    for name in re.findall(r"`(test_\w+)`", table):
        assert any(f"def {name}(" in path.read_text() for path in Path(__file__).parent.glob("test_*.py")), name


def test_tokenizer(model: peft.PeftModel, tmp_path: Path):
    """An object that can save itself, a directory of one, or none."""

    class Processor:
        def save_pretrained(self, directory: str) -> None:
            Path(directory).mkdir()
            (Path(directory) / "preprocessor_config.json").write_text('{"mine": 1}')

    help.tokenizer_of().save_pretrained(tmp_path / "words")
    lorafold.save_pretrained_merged(model, tmp_path / "a", tmp_path / "words")
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "words" / "tokenizer.json").read_bytes()
    lorafold.save_pretrained_merged(model, tmp_path / "b", Processor())
    assert json.loads((tmp_path / "b" / "preprocessor_config.json").read_text()) == {"mine": 1}
    lorafold.save_pretrained_merged(model, tmp_path / "c", None)
    assert "tokenizer.json" not in names(tmp_path / "b") | names(tmp_path / "c")


def test_max_shard_size(model: peft.PeftModel, tmp_path: Path):
    """As a text, as a number, and None, which is the default."""
    counts = {}
    for size in ("40KB", 40000, "60KB", None):
        report = lorafold.save_pretrained_merged(model, tmp_path / str(size), max_shard_size=size)
        counts[size] = report.shards
        assert len(list((tmp_path / str(size)).glob("model*.safetensors"))) == report.shards
    assert counts["40KB"] == counts[40000] > counts["60KB"] > counts[None] == 1


def test_safe_serialization(model: peft.PeftModel, tmp_path: Path):
    for safe, name in ((True, "model.safetensors"), (None, "model.safetensors"), (False, "pytorch_model.bin")):
        lorafold.save_pretrained_merged(model, tmp_path / str(safe), safe_serialization=safe)
        assert {one for one in names(tmp_path / str(safe)) if "model" in one} == {name}


def test_variant(model: peft.PeftModel, tmp_path: Path):
    lorafold.save_pretrained_merged(model, tmp_path / "out", variant="fp16", dtype="float16")
    assert {one for one in names(tmp_path / "out") if "model" in one} == {"model.fp16.safetensors"}


def test_base(model: peft.PeftModel, tmp_path: Path):
    """Taken literally: another one of the same shape gives another result."""
    other = tmp_path / "other"
    changed = models.load(tmp_path / "base", torch.float32)
    with torch.no_grad():
        changed.model.embed_tokens.weight.mul_(2)
    changed.save_pretrained(other)
    model.save_pretrained(tmp_path / "adapter")
    lorafold.save_pretrained_merged(tmp_path / "adapter", tmp_path / "a")
    report = lorafold.save_pretrained_merged(tmp_path / "adapter", tmp_path / "b", base=other)
    assert report.base == "other"
    one, two, theirs = (models.load_tensors(tmp_path / name)["model.embed_tokens.weight"] for name in ("a", "b", "other"))
    assert torch.equal(two, theirs) and not torch.equal(one, two)


def test_progress(model: peft.PeftModel, tmp_path: Path):
    seen: list[lorafold.Progress] = []
    lorafold.save_pretrained_merged(model, tmp_path / "out", progress=seen.append)
    assert seen and seen[-1].bytes_done == seen[-1].bytes_total


def adapters_below(directory: Path) -> list[Path]:
    return [path.parent for path in directory.rglob("adapter_model.safetensors")] if directory.exists() else []


def test_temporary_location(model: peft.PeftModel, tmp_path: Path):
    """While the library works, adapter and tokenizer lie there and nowhere else; then nothing does."""
    place, out = tmp_path / "a" / "b", tmp_path / "out"
    during: list[tuple[int, int, int]] = []

    def look(_now: lorafold.Progress) -> None:
        tokenizers = len(list(place.rglob("tokenizer.json")))
        during.append((len(adapters_below(place)), tokenizers, len(adapters_below(out))))

    lorafold.save_pretrained_merged(model, out, help.tokenizer_of(), temporary_location=place, progress=look)
    assert during and set(during) == {(1, 1, 0)}
    during.clear()
    lorafold.save_pretrained_merged(model, out, help.tokenizer_of(), progress=look)
    assert during and set(during) == {(0, 0, 1)}
    assert not list(place.iterdir()) and not adapters_below(tmp_path)


def test_temporary_location_of_a_push(model: peft.PeftModel, hub: TestHub, tmp_path: Path):
    place, work = tmp_path / "a" / "b", tmp_path / "work"
    during: list[tuple[int, int]] = []

    def look(_now: lorafold.Progress) -> None:
        during.append((len(adapters_below(place)), len(adapters_below(work))))

    options = {"token": TOKEN, "progress": look}
    lorafold.push_to_hub_merged(model, "ada/one", temporary_location=place, **options)
    assert during and set(during) == {(1, 0)}
    during.clear()
    lorafold.push_to_hub_merged(model, "ada/one", **options)
    assert during and set(during) == {(0, 1)}
    assert not list(place.iterdir()) and not list(work.iterdir())


@pytest.mark.parametrize("push", [False, True])
def test_maximum_memory_usage(push: bool, model: peft.PeftModel, hub: TestHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of what is available, the fraction bounds the merge; the same fraction goes to the device."""

    def save(fraction: float) -> object:
        if push:
            return lorafold.push_to_hub_merged(model, "ada/one", token=TOKEN, maximum_memory_usage=fraction)
        return lorafold.save_pretrained_merged(model, tmp_path / "out", maximum_memory_usage=fraction)

    fractions = []
    merge = _saving.merge
    monkeypatch.setattr(_saving, "merge", lambda *words, **more: (fractions.append(more["gpu_memory"]), merge(*words, **more))[1])
    monkeypatch.setattr(_save_options, "available_bytes", lambda: 64 * 2**20)
    with pytest.raises(lorafold.UsageError, match="too small"):
        save(0.01)
    assert not (tmp_path / "out").exists() and not hub.state.repos
    assert save(0.95) and fractions == [0.01, 0.95]


def test_maximum_memory_usage_reaches_the_library(tmp_path: Path, model: peft.PeftModel):
    model.save_pretrained(tmp_path / "adapter")
    options = _save_options.SaveOptions(maximum_memory_usage=0.5)
    given = _save_options.merge_options(options, None)
    plans = [lorafold.plan(tmp_path / "base", tmp_path / "adapter", **(given | {"device": "sim", "gpu_memory": part}))
             for part in (given["gpu_memory"], 0.25)]  # fmt: skip
    assert plans[0].device_budget_bytes == 2 * plans[1].device_budget_bytes > 0
    assert plans[0].memory_budget_bytes == _save_options.MEMORY_BYTES


def test_token_of_a_base(model: peft.PeftModel, hub: TestHub, tmp_path: Path):
    """A private base is fetched with the token of the call."""
    model.save_pretrained(tmp_path / "adapter")
    files = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    hub.state.add(Repo("team/base", private=True), files)
    with pytest.raises(lorafold.MachineError):
        lorafold.save_pretrained_merged(tmp_path / "adapter", tmp_path / "out", base="team/base")
    report = lorafold.save_pretrained_merged(tmp_path / "adapter", tmp_path / "out", base="team/base", token=TOKEN)
    assert report.base == "team/base"
    help.check_same_answers(tmp_path / "out", model, tmp_path / "base")


def test_token_of_a_push(model: peft.PeftModel, hub: TestHub, monkeypatch: pytest.MonkeyPatch):
    """False sends none, also where the environment has one; a text stands before the environment's."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(lorafold.MachineError, match="token"):
        lorafold.push_to_hub_merged(model, "ada/one", token=False)
    lorafold.push_to_hub_merged(model, "ada/one")
    monkeypatch.setenv("HF_TOKEN", "hf_wrongWRONGwrongWRONG")
    lorafold.push_to_hub_merged(model, "ada/two", token=TOKEN)
    assert set(hub.state.repos) == {"ada/one", "ada/two"}


@pytest.mark.parametrize("method", ["merged_16bit", "merged_4bit", "merged_4bit_forced", "lora"])
def test_push_to_hub_merged(method: str, model: peft.PeftModel, hub: TestHub, tmp_path: Path):
    """As in the contract's examples; what is on the Hub afterwards answers like the live model."""
    lorafold.attach(model).push_to_hub_merged("ada/new", help.tokenizer_of(), save_method=method, token=TOKEN)
    there = download(hub, "ada/new", tmp_path / "there")
    assert {"tokenizer.json", "tokenizer_config.json", "README.md"} <= names(there)
    if method == "lora":
        loaded = models.peft_unmerged_model(tmp_path / "base", there, torch.float32)
        torch.testing.assert_close(help.logits(loaded), help.logits(model))
        assert "config.json" not in names(there)
    elif method == "merged_16bit":
        help.check_same_answers(there, model, tmp_path / "base")
    else:
        assert json.loads((there / "config.json").read_text())["quantization_config"]["bnb_4bit_quant_type"] == "nf4"
        assert any(name.endswith("quant_state.bitsandbytes__nf4") for name in models.load_tensors(there))


def test_what_describes_a_push(model: peft.PeftModel, hub: TestHub):
    """private, commit_message, commit_description, tags and datasets, by both calls; without them, the defaults."""
    options = {"private": True, "commit_message": "all", "commit_description": "of it", "tags": ["x", "y"], "datasets": ["a/b", "c/d"]}
    lorafold.push_to_hub_merged(model, "ada/one", token=TOKEN, **options)
    lorafold.save_pretrained_merged(model, "kept", push_to_hub=True, repo_id="ada/two", token=TOKEN, **options)
    lorafold.push_to_hub_merged(model, "ada/three", token=TOKEN)
    for name in ("ada/one", "ada/two"):
        repo, card = hub.state.repos[name], pushed(hub, name)["README.md"]
        assert repo.private and (repo.head().message, repo.head().description) == ("all", "of it")
        assert b"- x\n- y\n" in card and b"datasets:\n- a/b\n- c/d\n" in card
    repo, card = hub.state.repos["ada/three"], pushed(hub, "ada/three")["README.md"]
    assert not repo.private and repo.head().message not in ("", "all") and b"- x\n" not in card and b"datasets" not in card
    assert "config.json" in names(Path("kept"))


@pytest.mark.parametrize("call", ["save", "push"])
def test_revision_and_create_pr(call: str, model: peft.PeftModel, hub: TestHub):
    def push(**options: object) -> None:
        if call == "save":
            lorafold.save_pretrained_merged(model, "ada/one", push_to_hub=True, token=TOKEN, **options)
        else:
            lorafold.push_to_hub_merged(model, "ada/one", token=TOKEN, **options)

    push(revision="v1")
    assert "config.json" in pushed(hub, "ada/one", "v1") and "config.json" not in pushed(hub, "ada/one")
    push(create_pr=True)
    assert "config.json" in pushed(hub, "ada/one", "refs/pr/1") and "config.json" not in pushed(hub, "ada/one")
    push()
    assert "config.json" in pushed(hub, "ada/one")


def test_the_other_parameters_of_a_push(model: peft.PeftModel, hub: TestHub, tmp_path: Path):
    """What push_to_hub_merged hands on: names, sizes, dtype, another base, and a state_dict."""
    state = {name: one.clone() for name, one in model.state_dict().items()}
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.zero_()
    options = {"max_shard_size": "40KB", "safe_serialization": False, "variant": "f16", "dtype": "float16", "state_dict": state}
    lorafold.push_to_hub_merged(model, "ada/one", token=TOKEN, **options)
    there = pushed(hub, "ada/one")
    assert "pytorch_model.bin.index.f16.json" in there
    assert sum(name.startswith("pytorch_model.f16-") for name in there) > 1
    saved = download(hub, "ada/one", tmp_path / "there")
    tensors = {name: one for path in saved.glob("*.bin") for name, one in torch.load(path, weights_only=True).items()}
    before = models.load_tensors(tmp_path / "base")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert tensors[name].dtype == torch.float16 and not torch.equal(tensors[name], before[name].half())


@pytest.mark.parametrize("options", [{"use_temp_dir": False}, {"calibration_dataset": []}, {"save_method": "16bit"},
                                     {"max_shard_size": "big"}, {"maximum_memory_usage": 1.5}], ids=str)  # fmt: skip
def test_a_push_refuses_what_a_save_does(options: dict, model: peft.PeftModel, hub: TestHub):
    with pytest.raises(lorafold.UsageError, match=next(iter(options))):
        lorafold.push_to_hub_merged(model, "ada/one", token=TOKEN, **options)
    assert not hub.requests and not list(Path().iterdir())

"""Every kind of LoRA that PEFT can save: folded as its formula says, with the logits of base and adapter at work."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import definition
import formula
import joining
import kinds
import models
import reference
from bases import BASES, make_base
from conftest import ROOT, Run
from kinds import KINDS, Kind, Made

Make = Callable[[Kind], Made]
SHARE = 1e-4  # of the elements may differ from the correctly rounded ones
TOLERANCE = 512 * torch.finfo(torch.float32).eps  # of the largest logit: fp32 sums in another order, in a few layers


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a kind once."""
    bases: dict[str, Path] = {}
    made: dict[int, Made] = {}

    def make(kind: Kind) -> Made:
        if kind.base not in bases:
            bases[kind.base] = tmp_path_factory.mktemp(kind.base)
            make_base(kind.base, bases[kind.base])
        if id(kind) not in made:
            made[id(kind)] = kinds.make(kind, bases[kind.base], tmp_path_factory.mktemp("adapters"))
        return made[id(kind)]

    return make


def join(made: Made, dtype: str) -> joining.Joined:
    adapters = list(zip(made.saved, made.kind.weights, strict=True))
    return joining.join(models.load_tensors(made.base / dtype), adapters, BASES[made.kind.base].transposed)


def assert_same_function(made: Made, directory: Path) -> None:
    base = BASES[made.kind.base]
    logits, trained = base.logits(base.load(directory)), made.trained_logits
    size = trained.abs().max().item()
    torch.testing.assert_close(logits, trained, rtol=0, atol=TOLERANCE * size)
    if logits.shape == made.plain_logits.shape:
        assert (logits - made.plain_logits).abs().max() > 0.01 * size, "the adapter changes nothing"


@pytest.mark.parametrize("name", KINDS)
def test_the_formula_is_what_peft_trains(name: str, make: Make, tmp_path: Path):
    """The oracle itself: the formula's tensors, as a model, give the logits of the unmerged PeftModel."""
    made = make(KINDS[name])
    joined = join(made, "f32")
    folded = formula.evaluate(joined)
    assert folded
    shutil.copytree(made.base / "f32", tmp_path / "model")
    tensors = joined.base | {key: torch.from_numpy(value).float() for key, value in folded.items()}
    tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
    models.save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((made.base / "f32" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | made.kind.config))
    assert_same_function(made, tmp_path / "model")


@pytest.mark.parametrize("name", KINDS)
def test_logits_are_those_of_base_and_adapter(name: str, make: Make, lorafold: Run, tmp_path: Path):
    made = make(KINDS[name])
    lorafold("merge", made.base / "f32", *made.arguments(), "-o", tmp_path / "out")
    before = json.loads((made.base / "f32" / "config.json").read_text())
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == before | made.kind.config
    assert_same_function(made, tmp_path / "out")


@pytest.mark.parametrize("name", KINDS)
def test_tensors_are_the_rounded_formula(name: str, make: Make, lorafold: Run, tmp_path: Path):
    """Bit for bit the definition's, which is nearly everywhere the correctly rounded formula."""
    made = make(KINDS[name])
    lorafold("merge", made.base / "bf16", *made.arguments(), "-o", tmp_path / "out")
    after, joined = models.load_tensors(tmp_path / "out"), join(made, "bf16")
    defined = definition.evaluate(joined)
    assert after.keys() == defined.keys()
    for key, tensor in defined.items():
        assert (after[key].shape, after[key].dtype) == (tensor.shape, tensor.dtype), key
    wrong = [key for key, tensor in defined.items() if not torch.equal(after[key], tensor)]
    assert not wrong
    apart = total = 0
    for key, exact in formula.evaluate(joined).items():
        count, far = formula.apart(after[key], reference.rounded_once(exact, torch.bfloat16), exact)
        assert not far, key
        apart += count
        total += exact.size
    chance = 3 * math.sqrt(SHARE * total)  # three standard deviations of a rare event's count
    assert apart <= SHARE * total + chance, f"{apart} of {total}"


def test_readme_has_a_row_for_every_kind():
    section = (ROOT / "README.md").read_text().split("## What is supported")[1].split("\n## ")[0]
    rows = {line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")}
    assert {kind.row for kind in KINDS.values()} <= rows

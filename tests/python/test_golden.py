"""The golden cases: the program gives their bytes, and the bytes are what they claim to be."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import definition
import models
import reference
import shards
from conftest import ROOT, Run

GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(GOLDEN))

import kinds_of_golden

CASES: dict[str, dict] = json.loads((GOLDEN / "cases.json").read_text())["cases"]

LINEAR = [name for name in CASES if (GOLDEN / name / "neighbours.safetensors").exists()]


@pytest.mark.parametrize("case", CASES)
def test_program_gives_the_golden_bytes(case: str, lorafold: Run, tmp_path: Path):
    directory = GOLDEN / case
    arguments = (directory / "arguments").read_text().split()
    lorafold("merge", "base", *arguments, "-o", tmp_path / "out", cwd=directory)
    assert shards.read_model(tmp_path / "out") == shards.read_shard(directory / "expected.safetensors")


@pytest.mark.parametrize("case", LINEAR)
def test_golden_bytes_follow_the_definition(case: str):
    directory, record = GOLDEN / case, CASES[case]
    names = ["adapter", *(f"adapter{number}" for number in range(2, len(record["weights"]) + 1))]
    adapters = [directory / name for name in names]
    base = models.load_tensors(directory / "base")
    deltas = models.deltas_of(list(zip(adapters, record["weights"], strict=True)))
    expected = load_file(directory / "expected.safetensors")
    neighbours = load_file(directory / "neighbours.safetensors")
    assert expected.keys() == base.keys()
    equal = {"peft": [0, 0], "float64": [0, 0]}
    for name, tensor in expected.items():
        assert torch.equal(tensor, reference.fold(base[name], deltas.get(name, []))), name
        bound = reference.error_bound(base[name], deltas.get(name, []))
        for kind, count in equal.items():
            neighbour = neighbours.get(f"{kind}.{name}")
            if neighbour is None:
                continue
            count[0] += int(torch.eq(tensor, neighbour).sum())
            count[1] += tensor.numel()
            apart = (tensor.double() - neighbour.double()).abs().numpy()
            assert (apart <= bound).all(), name
    for kind, (same, total) in equal.items():
        if total:
            assert same / total == record[f"share_equal_to_{kind}"]
            assert same / total >= 0.999


@pytest.mark.parametrize("case", kinds_of_golden.KINDS)
def test_golden_bytes_of_other_kinds_follow_the_definition(case: str):
    joined = kinds_of_golden.join(kinds_of_golden.KINDS[case], GOLDEN / case)
    expected, defined = load_file(GOLDEN / case / "expected.safetensors"), definition.evaluate(joined)
    assert expected.keys() == defined.keys()
    for name, tensor in defined.items():
        assert torch.equal(expected[name], tensor) and expected[name].dtype == tensor.dtype, name
    share = kinds_of_golden.share_of_rounded(joined, expected)
    assert share == CASES[case]["share_equal_to_float64"] >= 0.99


def test_every_case_is_recorded():
    directories = {path.name for path in GOLDEN.iterdir() if (path / "arguments").exists()}
    assert directories == CASES.keys() == {*LINEAR, *kinds_of_golden.KINDS}

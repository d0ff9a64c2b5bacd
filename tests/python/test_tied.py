"""Models whose embedding and head are one tensor, and adapters that change one side."""

import json
from pathlib import Path

import pytest
import torch
import transformers

import models
import reference
from conftest import Run

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LORA = {"r": 5, "lora_alpha": 9, "target_modules": ["q_proj", "lm_head"], "task_type": "CAUSAL_LM"}


def make_tied(directory: Path, **lora: object) -> tuple[Path, Path, Path]:
    config = transformers.LlamaConfig(**models.GROUPED, tie_word_embeddings=True)
    models.from_config(config, torch.float32).save_pretrained(directory / "base")
    base, adapter = directory / "base", directory / "adapter"
    assert HEAD not in models.load_tensors(base)
    models.make_adapter(base, adapter, torch.float32, seed=8, **(LORA | lora))
    drop_saved_embeddings(adapter)
    return base, adapter, directory / "out"


def drop_saved_embeddings(adapter: Path) -> None:
    """Some PEFT versions save the whole base tensor beside the factors; only factors are wanted here."""
    path = adapter / "adapter_model.safetensors"
    tensors = {name: value for name, value in models.load_file(path).items() if ".lora_" in name}
    models.save_file(tensors, path, metadata={"format": "pt"})


def tie_flag(out: Path) -> bool:
    return json.loads((out / "config.json").read_text())["tie_word_embeddings"]


def test_exact_writes_two_tensors_and_computes_what_was_trained(lorafold: Run, tmp_path: Path):
    base, adapter, out = make_tied(tmp_path)
    done = lorafold("merge", base, "-a", adapter, "-o", out)
    assert HEAD in done.stdout + done.stderr or "tied" in (done.stdout + done.stderr).lower()
    before, after = models.load_tensors(base), models.load_tensors(out)
    deltas = models.deltas_of([(adapter, 1.0)])
    assert after.keys() == before.keys() | {HEAD}
    assert torch.equal(after[EMBEDDING], before[EMBEDDING])
    assert torch.equal(after[HEAD], reference.fold(before[EMBEDDING], deltas[HEAD]))
    assert tie_flag(out) is False
    left = models.logits(models.load(out, torch.float32))
    right = models.logits(models.peft_unmerged_model(base, adapter, torch.float32))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4 * right.abs().max().item())


def test_shared_changes_the_one_tensor(lorafold: Run, tmp_path: Path):
    base, adapter, out = make_tied(tmp_path)
    lorafold("merge", base, "-a", adapter, "-o", out, "--tied", "shared")
    before, after = models.load_tensors(base), models.load_tensors(out)
    deltas = models.deltas_of([(adapter, 1.0)])
    assert after.keys() == before.keys()
    assert torch.equal(after[EMBEDDING], reference.fold(before[EMBEDDING], deltas[HEAD]))
    assert tie_flag(out) is True
    model = models.load(out, torch.float32)
    assert model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()


@pytest.mark.parametrize("rule", ["exact", "shared"])
def test_an_adapter_that_leaves_both_sides_alone_keeps_the_tie(rule: str, lorafold: Run, tmp_path: Path):
    base, adapter, out = make_tied(tmp_path, target_modules=["q_proj", "down_proj"])
    lorafold("merge", base, "-a", adapter, "-o", out, "--tied", rule)
    before, after = models.load_tensors(base), models.load_tensors(out)
    assert after.keys() == before.keys()
    assert torch.equal(after[EMBEDDING], before[EMBEDDING])
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()

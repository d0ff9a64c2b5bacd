"""Models whose embedding and head are one tensor, and adapters that change one side."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import peft
import pytest
import torch
import transformers

import bases
import kinds
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


@dataclass(frozen=True)
class Sides:
    """What an adapter does to the two sides of a tie."""

    changed: str  # "embedding", "head", "alike", "apart"
    lora: dict = field(default_factory=dict)
    grown: bool = False
    method: type[peft.PeftConfig] = peft.LoraConfig

    def load(self, base: Path) -> transformers.PreTrainedModel:
        model = models.load(base, torch.float32)
        if self.grown:
            bases.grow(model)
        return model

    def settings(self) -> peft.PeftConfig:
        if self.method is peft.TrainableTokensConfig:
            return self.method(**self.lora)
        return peft.LoraConfig(**({"r": 4, "lora_alpha": 7, "target_modules": ["q_proj"]} | self.lora))


TIE = {"ensure_weight_tying": True}
BOTH = ["embed_tokens", "lm_head"]
SIDES = {
    "lora_on_embedding": Sides("embedding", {"target_modules": ["q_proj", "embed_tokens"]}),
    "lora_on_head": Sides("head", {"target_modules": ["q_proj", "lm_head"]}),
    "lora_on_both": Sides("apart", {"target_modules": BOTH}),
    "lora_on_embedding_tied": Sides("alike", {"target_modules": ["embed_tokens"]} | TIE),
    "lora_on_both_tied": Sides("alike", {"target_modules": BOTH} | TIE),
    "dora_on_both_tied": Sides("apart", {"target_modules": BOTH, "use_dora": True} | TIE),
    "dora_on_embedding": Sides("embedding", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "saved_embedding": Sides("embedding", {"modules_to_save": ["embed_tokens"]}),
    "saved_head": Sides("head", {"modules_to_save": ["lm_head"]}),
    "saved_both": Sides("apart", {"modules_to_save": BOTH}),
    "saved_embedding_tied": Sides("alike", {"modules_to_save": ["embed_tokens"]} | TIE),
    "tokens": Sides("alike", {"trainable_token_indices": [3, 9]}),
    "tokens_tied": Sides("alike", {"trainable_token_indices": [3, 9]} | TIE),
    "tokens_of_both": Sides("alike", {"trainable_token_indices": {"embed_tokens": [3, 9], "lm_head": [3, 9]}}),
    "tokens_apart": Sides("apart", {"trainable_token_indices": {"embed_tokens": [3, 9], "lm_head": [4, 9]}}),
    "tokens_alone": Sides(
        "alike", {"token_indices": [3, 9], "target_modules": ["embed_tokens"]}, method=peft.TrainableTokensConfig
    ),
    "grown": Sides("alike", grown=True),
    "grown_and_tokens": Sides("alike", {"trainable_token_indices": [100, 5]}, grown=True),
    "grown_and_lora_on_embedding": Sides("embedding", {"target_modules": ["embed_tokens"]}, grown=True),
    "grown_and_saved_embedding": Sides("apart", {"modules_to_save": ["embed_tokens"]}, grown=True),
}


@pytest.fixture(scope="module")
def tied_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tied") / "base"
    config = transformers.LlamaConfig(**models.GROUPED, tie_word_embeddings=True)
    models.from_config(config, torch.float32).save_pretrained(base)
    return base


def adapt(sides: Sides, base: Path, adapter: Path) -> transformers.PreTrainedModel:
    """Save an adapter; base and adapter at work."""
    model = peft.get_peft_model(sides.load(base), sides.settings())
    kinds.randomise_trained(model, 4)
    model.save_pretrained(adapter)
    return peft.PeftModel.from_pretrained(sides.load(base), adapter).eval()


def weights_at_work(model: torch.nn.Module, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the embedding gives for each token, and the head for each unit vector."""
    with torch.no_grad():
        embedding = model.get_input_embeddings()(torch.arange(vocabulary))
        return embedding, model.get_output_embeddings()(torch.eye(embedding.shape[1])).T


@pytest.mark.parametrize("name", SIDES)
def test_exact_computes_what_was_trained(name: str, tied_base: Path, lorafold: Run, tmp_path: Path):
    sides, out = SIDES[name], tmp_path / "out"
    unmerged = adapt(sides, tied_base, tmp_path / "adapter")
    alike = sides.changed == "alike"
    embedding, head = weights_at_work(unmerged, 104 if sides.grown else 96)
    assert torch.allclose(embedding, head, rtol=0, atol=1e-5) == alike, "the case is not what it is called"
    lorafold("merge", tied_base, "-a", tmp_path / "adapter", "-o", out)
    assert tie_flag(out) is alike
    assert (HEAD in models.load_tensors(out)) is not alike
    merged = models.load(out, torch.float32)
    for left, right in zip(weights_at_work(merged, len(embedding)), (embedding, head), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
    left, right = models.logits(merged), models.logits(unmerged)
    torch.testing.assert_close(left, right, rtol=0, atol=6e-5 * right.abs().max().item())


@pytest.mark.parametrize("name", [name for name in SIDES if SIDES[name].changed != "apart"])
def test_shared_has_one_tensor_with_the_change(name: str, tied_base: Path, lorafold: Run, tmp_path: Path):
    sides, out = SIDES[name], tmp_path / "out"
    unmerged = adapt(sides, tied_base, tmp_path / "adapter")
    lorafold("merge", tied_base, "-a", tmp_path / "adapter", "-o", out, "--tied", "shared")
    assert tie_flag(out) is True
    after = models.load_tensors(out)
    assert HEAD not in after
    changed = weights_at_work(unmerged, len(after[EMBEDDING]))[sides.changed == "head"]
    torch.testing.assert_close(after[EMBEDDING], changed, rtol=0, atol=1e-5)
    assert models.load(out, torch.float32).config.vocab_size == len(changed) == (104 if sides.grown else 96)


@pytest.mark.parametrize("name", [name for name in SIDES if SIDES[name].changed == "apart"])
def test_shared_is_refused_where_the_sides_differ(name: str, tied_base: Path, lorafold: Run, tmp_path: Path):
    adapt(SIDES[name], tied_base, tmp_path / "adapter")
    arguments = ["merge", tied_base, "-a", tmp_path / "adapter", "-o", tmp_path / "out", "--tied", "shared"]
    assert "tied" in lorafold(*arguments, status=4).stderr
    assert not (tmp_path / "out").exists()

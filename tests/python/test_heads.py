"""Heads of a task: classes of an adapter that the base has not, or has in another number."""

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

import kinds
import models
from conftest import Run

LABELS = 5
IDS = torch.arange(3, 21).reshape(2, 9)


def llama(**more: object) -> transformers.LlamaConfig:
    return transformers.LlamaConfig(**models.GROUPED, **more)


def roberta(**more: object) -> transformers.RobertaConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.RobertaConfig(vocab_size=96, max_position_embeddings=64, **sizes, **more)


BASES = {
    "causal": lambda: transformers.LlamaForCausalLM(llama()),
    "masked": lambda: transformers.RobertaForMaskedLM(roberta()),
    "two_classes": lambda: transformers.LlamaForSequenceClassification(llama(num_labels=2)),
    "two_classes_with_bias": lambda: transformers.RobertaForSequenceClassification(roberta(num_labels=2)),
    "as_many_classes_as_tokens": lambda: transformers.LlamaForSequenceClassification(llama(num_labels=96)),
}


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS"])
@pytest.mark.parametrize("name", BASES)
def test_the_output_says_how_many_classes_it_has(name: str, task: str, lorafold: Run, tmp_path: Path):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    torch.manual_seed(5)
    BASES[name]().save_pretrained(base)
    kind = AutoModelForSequenceClassification if task == "SEQ_CLS" else AutoModelForTokenClassification

    def load() -> transformers.PreTrainedModel:
        torch.manual_seed(6)  # the head that the base lacks
        return kind.from_pretrained(base, num_labels=LABELS, ignore_mismatched_sizes=True).eval()

    targets = ["query", "q_proj"]
    model = peft.get_peft_model(load(), peft.LoraConfig(r=4, target_modules=targets, task_type=task))
    kinds.randomise_trained(model, 4)
    model.save_pretrained(adapter)
    trained = peft.PeftModel.from_pretrained(load(), adapter).eval()
    lorafold("merge", base, "-a", adapter, "-o", out)
    merged = kind.from_pretrained(out).eval()
    assert merged.config.num_labels == LABELS
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 96
    with torch.no_grad():
        left, right = merged(IDS).logits, trained(IDS).logits
    torch.testing.assert_close(left, right, rtol=0, atol=6e-5 * right.abs().max().item())

"""Heads of a task: classes of an adapter that the base has not, or has in another number."""

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

import bases
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


GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96, "n_positions": 64, "rotary_dim": 4}
GPT |= {"bos_token_id": 1, "eos_token_id": 2}
BERT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}
RWKV = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64}
DISTILBERT = {"vocab_size": 96, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
MADE = {
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**BERT)),
    "roberta": lambda: transformers.RobertaForMaskedLM(roberta()),
    "albert": lambda: transformers.AlbertForMaskedLM(transformers.AlbertConfig(**BERT, embedding_size=16)),
    "distilbert": lambda: transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(**DISTILBERT)),
    "electra": lambda: transformers.ElectraForMaskedLM(transformers.ElectraConfig(**BERT, embedding_size=32)),
    "phi": lambda: transformers.PhiForCausalLM(transformers.PhiConfig(**BERT)),
    "gptj": lambda: transformers.GPTJForCausalLM(transformers.GPTJConfig(**GPT)),
    "codegen": lambda: transformers.CodeGenForCausalLM(transformers.CodeGenConfig(**GPT)),
    "rwkv": lambda: transformers.RwkvForCausalLM(transformers.RwkvConfig(**RWKV)),
    "biogpt": lambda: transformers.BioGptForCausalLM(transformers.BioGptConfig(**BERT)),
}
TARGETS = ["query", "q_lin", "q_proj", "qkv_proj", "key"]
MASKED_HEADS = {
    "bert": "cls", "roberta": "lm_head", "albert": "predictions", "distilbert": "vocab_projector",
    "electra": "generator_lm_head",
}


def check_head(name: str, lorafold: Run, tmp_path: Path, grow: bool = False, **lora: object) -> None:
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    torch.manual_seed(5)
    made = MADE[name]()
    models.randomise(made, 5)
    made.save_pretrained(base)
    model = type(made).from_pretrained(base)
    if grow:
        bases.grow(model)
    model = peft.get_peft_model(model, peft.LoraConfig(**({"r": 4, "target_modules": TARGETS} | lora)))
    kinds.randomise_trained(model, 4)
    model.eval().save_pretrained(adapter)
    lorafold("merge", base, "-a", adapter, "-o", out)
    merged = type(made).from_pretrained(out).eval()
    with torch.no_grad():
        left, right = merged(IDS).logits, model(IDS).logits
    torch.testing.assert_close(left, right, rtol=0, atol=6e-5 * right.abs().max().item())


@pytest.mark.parametrize("name", MASKED_HEADS)
def test_the_bias_of_a_masked_head_has_two_names(name: str, lorafold: Run, tmp_path: Path):
    check_head(name, lorafold, tmp_path, bias="all")


@pytest.mark.parametrize("name", MASKED_HEADS)
def test_a_masked_head_that_is_saved_is_untied(name: str, lorafold: Run, tmp_path: Path):
    check_head(name, lorafold, tmp_path, modules_to_save=[MASKED_HEADS[name]])


@pytest.mark.parametrize("name", ["bert", "roberta", "albert"])
def test_a_masked_head_with_factors_has_a_bias_of_its_own(name: str, lorafold: Run, tmp_path: Path):
    check_head(name, lorafold, tmp_path, target_modules=["decoder"], lora_bias=True)


@pytest.mark.parametrize("name", MADE)
def test_a_head_grows_with_the_vocabulary(name: str, lorafold: Run, tmp_path: Path):
    check_head(name, lorafold, tmp_path, grow=True)

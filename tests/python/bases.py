"""The tiny models that kinds.py adapts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

import models
from every_layer import EveryLayer, EveryLayerConfig

Model = torch.nn.Module
TOKENS = torch.arange(1, 33).reshape(2, 16)


@dataclass(frozen=True)
class Base:
    build: Callable[[], PreTrainedModel]
    load: Callable[[Path], PreTrainedModel]
    transposed: Callable[[str], bool] = lambda module: False

    def logits(self, model: Model) -> torch.Tensor:
        with torch.no_grad():
            return model.eval().float()(input_ids=TOKENS).logits


def causal(config: Callable[[], transformers.PretrainedConfig], **more: object) -> Base:
    return Base(
        lambda: AutoModelForCausalLM.from_config(config()),
        lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        **more,
    )


def llama(**changes: object) -> transformers.LlamaConfig:
    return transformers.LlamaConfig(**(models.GROUPED | changes))


def gpt2() -> transformers.GPT2Config:
    names = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 96}
    return transformers.GPT2Config(**names, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False)


BASES = {
    "llama": causal(llama),
    "qwen2": causal(lambda: transformers.Qwen2Config(**models.GROUPED)),  # has biases
    "gpt2": causal(gpt2, transposed=lambda module: module.rsplit(".", 1)[-1] in ("c_attn", "c_proj", "c_fc")),
    "every_layer": Base(
        lambda: EveryLayer(EveryLayerConfig()), lambda path: EveryLayer.from_pretrained(path, dtype=torch.float32)
    ),
    "classifier": Base(
        lambda: AutoModelForSequenceClassification.from_config(llama(num_labels=3)),
        lambda path: AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32),
    ),
}


def make_base(name: str, directory: Path) -> None:
    """f32/ and bf16/ hold the same numbers."""
    torch.manual_seed(5)
    model = BASES[name].build().float()
    models.randomise(model, 5)
    model.to(torch.bfloat16).save_pretrained(directory / "bf16")
    model.float().save_pretrained(directory / "f32")


def grow(model: PreTrainedModel) -> None:
    """Eight more tokens, with numbers that bf16 can hold."""
    model.resize_token_embeddings(104, mean_resizing=False)
    generator = torch.Generator().manual_seed(6)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        new = torch.randn((8, layer.weight.shape[1]), generator=generator) * 0.1
        layer.weight.data[96:] = new.bfloat16().float()

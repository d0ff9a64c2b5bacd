"""Tiny real models and adapters, made by transformers and PEFT, and what PEFT makes of the two."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from reference import Delta

SMALL = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}
GROUPED = SMALL | {"intermediate_size": 112, "num_key_value_heads": 2}
FAMILIES: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, head_dim=16),
    "mistral": lambda: transformers.MistralConfig(**GROUPED),
    "phi3": lambda: transformers.Phi3Config(**GROUPED),
    "gemma": lambda: transformers.GemmaConfig(**GROUPED, head_dim=16),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SMALL, intermediate_size=112),
}


def randomise(model: PreTrainedModel, seed: int) -> None:
    """Weights of a size that leaves every element with all its bits, and no zeros (biases, norms)."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.08
        parameter.data = (parameter.data.float() + noise).to(parameter.dtype)


def from_config(config: transformers.PretrainedConfig, dtype: torch.dtype, seed: int = 5) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).to(dtype)
    randomise(model, seed)
    return model.eval()


def tiny_llama(dtype: torch.dtype, hidden: int, intermediate: int, vocab: int, layers: int) -> PreTrainedModel:
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "vocab_size": vocab}
    return from_config(transformers.LlamaConfig(**(GROUPED | sizes | {"num_hidden_layers": layers})), dtype)


def load(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()


def make_adapter(base: Path, adapter: Path, dtype: torch.dtype, seed: int, **lora: object) -> None:
    """Factors large enough to change every weight, saved by PEFT, then brought to `dtype`."""
    config = peft.LoraConfig(**lora)
    model = peft.get_peft_model(load(base, torch.float32), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.15
    model.peft_config["default"].base_model_name_or_path = "tiny/base"
    model.save_pretrained(adapter)
    path = adapter / "adapter_model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def load_tensors(directory: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(shard)
    return tensors


def peft_merged(base: Path, adapter: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return peft_merged_model(base, adapter, dtype).state_dict()


def peft_merged_model(base: Path, adapter: Path, dtype: torch.dtype) -> PreTrainedModel:
    model = peft.PeftModel.from_pretrained(load(base, dtype), adapter)
    return model.merge_and_unload()


def peft_unmerged_model(base: Path, adapter: Path, dtype: torch.dtype) -> peft.PeftModel:
    return peft.PeftModel.from_pretrained(load(base, dtype), adapter).eval()


def pattern_value(patterns: dict[str, float], module: str, default: float) -> float:
    """PEFT's rule: the first key in file order that matches the whole name or its last components."""
    for key, value in patterns.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def scale_of(config: dict, module: str) -> float:
    rank = pattern_value(config.get("rank_pattern") or {}, module, config["r"])
    alpha = pattern_value(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def deltas_of(adapters: list[tuple[Path, float]]) -> dict[str, list[Delta]]:
    """The deltas of each base tensor, in the order of the adapters."""
    deltas: dict[str, list[Delta]] = {}
    for adapter, weight in adapters:
        config = json.loads((adapter / "adapter_config.json").read_text())
        factors = load_file(adapter / "adapter_model.safetensors")
        for name, a in factors.items():
            if not name.endswith(".lora_A.weight"):
                continue
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b = factors[name.replace(".lora_A.", ".lora_B.")]
            scale = weight * scale_of(config, module)
            delta = Delta(a.float().numpy(), b.float().numpy(), scale)
            deltas.setdefault(f"{module}.weight", []).append(delta)
    return deltas


def logits(model: torch.nn.Module) -> torch.Tensor:
    """In fp32, so that only the weights make a difference."""
    tokens = torch.arange(1, 33).reshape(2, 16)
    with torch.no_grad():
        return model.float()(input_ids=tokens).logits

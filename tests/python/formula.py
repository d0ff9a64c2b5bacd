"""What an adapter does to a base, by the formula of each kind in float64: neither PEFT's code nor the program's.

The names of the base must be the runtime names.  docs/NUMERICS.md has the formulas.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import models

F64 = np.ndarray
FACTOR = re.compile(
    r"(?P<module>.*?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?P<end>\.weight|\.bias|)$"
)
TOKENS = re.compile(r"(?P<module>.*?)(\.token_adapter)?\.trainable_tokens_delta$")


@dataclass
class Module:
    """The tensors of one adapted module, by their name behind it."""

    name: str
    parts: dict[str, F64] = field(default_factory=dict)


@dataclass
class Adapter:
    config: dict
    weight: float
    tensors: dict[str, F64]
    modules: dict[str, Module] = field(default_factory=dict)
    replaced: dict[str, F64] = field(default_factory=dict)
    rows: dict[str, F64] = field(default_factory=dict)


def read_adapter(directory: Path, weight: float) -> Adapter:
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = {
        name.removeprefix("base_model.model."): tensor.double().numpy()
        for name, tensor in load_file(directory / "adapter_model.safetensors").items()
    }
    adapter = Adapter(config, weight, tensors)
    for name, value in tensors.items():
        if factor := FACTOR.fullmatch(name):
            module = adapter.modules.setdefault(factor["module"], Module(factor["module"]))
            module.parts[factor["part"] + (".bias" if factor["end"] == ".bias" else "")] = value
        elif rows := TOKENS.fullmatch(name):
            adapter.rows[f"{rows['module']}.weight"] = value
        elif ".original_module." not in name and ".modules_to_save." not in name:
            adapter.replaced[name.replace(".token_adapter.", ".").replace(".base_layer.", ".")] = value
    return adapter


def replicated(base: dict[str, torch.Tensor], ranges: list[list[int]] | None) -> dict[str, torch.Tensor]:
    """layer_replication: new layer j is a copy of the j-th layer of the ranges."""
    if not ranges:
        return dict(base)
    order = [layer for first, end in ranges for layer in range(first, end)]
    result = {}
    for name, tensor in base.items():
        match = re.search(r"\.layers\.(\d+)\.", name)
        if not match:
            result[name] = tensor
            continue
        for new, old in enumerate(order):
            if old == int(match[1]):
                result[name[: match.start()] + f".layers.{new}." + name[match.end() :]] = tensor
    return result


def block_diagonal(chunks: list[F64]) -> F64:
    return torch.block_diag(*map(torch.from_numpy, chunks)).numpy()


def factors_of(adapter: Adapter, module: Module) -> tuple[F64, F64]:
    a, b = module.parts["lora_A"], module.parts["lora_B"]
    blocks = adapter.config.get("use_bdlora")
    if blocks:
        if any(word in module.name for word in blocks["target_modules_bd_a"] or []):
            a = block_diagonal(np.split(a, blocks["nblocks"]))
        if any(word in module.name for word in blocks["target_modules_bd_b"] or []):
            b = block_diagonal(np.split(b, blocks["nblocks"]))
    return a, b


def fold_module(
    state: dict[str, F64], first: dict[str, F64], adapter: Adapter, module: Module, transposed: bool
) -> None:
    """`first` is what DoRA measures: the weights before the first adapter."""
    scale = adapter.weight * models.scale_of(adapter.config, module.name)
    name = f"{module.name.replace('.base_layer', '')}.weight"
    if "lora_embedding_A" in module.parts:
        delta = scale * (module.parts["lora_embedding_B"] @ module.parts["lora_embedding_A"]).T
        by_column = True
    else:
        if name not in state:  # in_proj of an attention layer is no module of its own
            name = f"{module.name}.in_proj_weight"
        if module.name.endswith(".base_layer.out_proj"):
            scale *= 2  # PEFT's attention layer adds this delta twice, in training as well
        a, b = factors_of(adapter, module)
        delta = scale * (b.reshape(b.shape[0], -1) @ a.reshape(a.shape[0], -1))
        delta = delta.T if transposed else delta.reshape(state[name].shape)
        by_column = transposed
    after = state[name] + delta
    if "lora_magnitude_vector" in module.parts:
        whole = first[name] + delta
        others = (0,) if by_column else tuple(range(1, whole.ndim))
        norm = np.sqrt((whole**2).sum(axis=others, keepdims=True))
        after = module.parts["lora_magnitude_vector"].reshape(norm.shape) / norm * after
    state[name] = after
    if "lora_B.bias" in module.parts:
        bias = name.replace("in_proj_weight", "in_proj_bias").removesuffix(".weight").removesuffix(".bias")
        state[f"{bias}.bias"] = state[f"{bias}.bias"] + scale * module.parts["lora_B.bias"]


def token_indices(config: dict, name: str) -> list[int]:
    indices = config.get("trainable_token_indices") or config.get("token_indices")
    if isinstance(indices, dict):
        module = name.removesuffix(".weight")
        return next(rows for key, rows in indices.items() if f".{module}".endswith(f".{key}"))
    return indices


def fold(
    base: dict[str, torch.Tensor],
    adapters: list[tuple[Path, float]],
    transposed: Callable[[str], bool] = lambda module: False,
) -> tuple[dict[str, torch.Tensor], dict[str, F64]]:
    """The tensors that stay, and the values of those that change, before they are rounded once."""
    read = [read_adapter(path, weight) for path, weight in adapters]
    base = replicated(base, read[0].config.get("layer_replication"))
    first = {name: tensor.double().numpy() for name, tensor in base.items()}
    for adapter in read:
        first |= adapter.replaced
    state = dict(first)
    for adapter in read:
        for name, rows in adapter.rows.items():
            state[name] = state[name].copy()
            state[name][token_indices(adapter.config, name)] = rows
        for name in sorted(adapter.modules):
            fold_module(state, first, adapter, adapter.modules[name], transposed(name))
    changed = {name for adapter in read for name in adapter.replaced}
    changed |= {name for name in state if name not in base or state[name] is not first.get(name)}
    return {name: base[name] for name in base if name not in changed}, {name: state[name] for name in changed}


def rounded_apart(actual: torch.Tensor, rounded: torch.Tensor, exact: F64) -> tuple[int, bool]:
    """How many elements differ from the correctly rounded ones, and whether some differ by more than a step.

    Where base and delta cancel, a step of the result is smaller than the fp32 error of the sum: half
    a thousandth of the tensor's largest element, in steps of fp32, is allowed as well.
    """
    apart = (actual.double() - rounded.double()).abs().numpy()
    info = torch.finfo(actual.dtype)
    step = np.maximum(np.abs(exact), info.tiny) * info.eps + np.abs(exact).max() * 2.0**-20
    return int((apart != 0).sum()), bool((apart > step).any())

"""What an adapter does to a base, read from the files alone: which rows and columns each pair of factors changes.

The names of the base must be the runtime names.  reference.py and formula.py do the sums.
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

F32 = np.ndarray
FACTOR = re.compile(
    r"(?P<module>.*?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?P<end>\.weight|\.bias|)$"
)
TOKENS = re.compile(r"(?P<module>.*?)(\.token_adapter)?\.trainable_tokens_delta$")
EXPERTS = ["gate_up_proj", "down_proj"]  # in the order in which the module registers them


@dataclass
class Edit:
    """left [count, rank] times right [rank, cols] on the rows from `first` of a tensor's memory [rows, cols]."""

    left: F32
    right: F32
    scale: float
    first: int = 0
    magnitude: F32 | None = None  # DoRA: the norms of W + delta become these
    norm_of_columns: bool = False


@dataclass
class Joined:
    base: dict[str, torch.Tensor]  # with repeated layers
    replaced: dict[str, torch.Tensor] = field(default_factory=dict)
    rows: dict[str, list[tuple[int, torch.Tensor]]] = field(default_factory=dict)
    edits: dict[str, list[Edit]] = field(default_factory=dict)

    def names(self) -> set[str]:
        return self.replaced.keys() | self.rows.keys() | self.edits.keys()

    def weight(self, name: str) -> torch.Tensor:
        return self.replaced[name] if name in self.replaced else self.base[name]

    def matrix(self, name: str) -> tuple[int, int]:
        shape = self.weight(name).shape
        if len(shape) == 1:
            return 1, shape[0]
        if name.endswith(tuple(EXPERTS)):
            return shape[0] * shape[1], shape[2]
        return shape[0], int(np.prod(shape[1:]))


@dataclass
class Adapter:
    config: dict
    weight: float
    transposed: Callable[[str], bool]
    modules: dict[str, dict[str, F32]] = field(default_factory=dict)


def join(
    base: dict[str, torch.Tensor],
    adapters: list[tuple[Path, float]],
    transposed: Callable[[str], bool] = lambda module: False,
) -> Joined:
    joined = None
    for path, weight in adapters:
        adapter = Adapter(json.loads((path / "adapter_config.json").read_text()), weight, transposed)
        joined = joined or Joined(replicated(base, adapter.config.get("layer_replication")))
        read_tensors(joined, adapter, path)
        for module in sorted(adapter.modules):
            join_module(joined, adapter, module)
    assert joined is not None
    return joined


def read_tensors(joined: Joined, adapter: Adapter, path: Path) -> None:
    safe = path / "adapter_model.safetensors"
    tensors = load_file(safe) if safe.exists() else torch.load(path / "adapter_model.bin", weights_only=True)
    for key, value in tensors.items():
        name = key.removeprefix("base_model.model.")
        if factor := FACTOR.fullmatch(name):
            part = factor["part"] + (".bias" if factor["end"] == ".bias" else "")
            adapter.modules.setdefault(factor["module"], {})[part] = value.float().numpy()
        elif rows := TOKENS.fullmatch(name):
            name = f"{rows['module']}.weight"
            joined.rows[name] = list(zip(token_indices(adapter.config, name), value, strict=True))
        elif ".original_module." not in name and ".modules_to_save." not in name:
            joined.replaced[name.replace(".token_adapter.", ".").replace(".base_layer.", ".")] = value


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


def token_indices(config: dict, name: str) -> list[int]:
    indices = config.get("trainable_token_indices") or config.get("token_indices")
    if isinstance(indices, dict):
        module = name.removesuffix(".weight")
        return next(rows for key, rows in indices.items() if f".{module}".endswith(f".{key}"))
    return indices


def block_diagonal(factor: F32, blocks: int) -> F32:
    return torch.block_diag(*map(torch.from_numpy, np.split(factor, blocks))).numpy()


def factors_of(adapter: Adapter, module: str) -> tuple[F32, F32]:
    a, b = (adapter.modules[module][part] for part in ("lora_A", "lora_B"))
    if blocks := adapter.config.get("use_bdlora"):
        if any(word in module for word in blocks["target_modules_bd_a"] or []):
            a = block_diagonal(a, blocks["nblocks"])
        if any(word in module for word in blocks["target_modules_bd_b"] or []):
            b = block_diagonal(b, blocks["nblocks"])
    return a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)


def join_module(joined: Joined, adapter: Adapter, module: str) -> None:
    parts = adapter.modules[module]
    name = f"{module.replace('.base_layer', '')}.weight"
    scale = adapter.weight * models.scale_of(adapter.config, module)
    if module.removesuffix(".base_layer").endswith(".experts"):
        join_experts(joined, adapter, module)
        return
    if "lora_embedding_A" in parts:
        turned, a, b = True, parts["lora_embedding_A"], parts["lora_embedding_B"]
    else:
        turned, (a, b) = adapter.transposed(module), factors_of(adapter, module)
        if name not in joined.base:  # in_proj of an attention layer is no module of its own
            name = f"{module}.in_proj_weight"
        if module.endswith(".base_layer.out_proj"):
            scale *= 2  # PEFT's attention layer adds this delta twice, in training as well
    edit = Edit(a.T, b.T, scale) if turned else Edit(b, a, scale)
    if "lora_magnitude_vector" in parts:
        edit.magnitude, edit.norm_of_columns = parts["lora_magnitude_vector"].reshape(-1), turned
    joined.edits.setdefault(name, []).append(edit)
    if "lora_B.bias" in parts:
        bias = re.sub("weight$", "bias", name)
        ones = np.ones((1, 1), np.float32)
        joined.edits.setdefault(bias, []).append(Edit(ones, parts["lora_B.bias"][None], scale))


def join_experts(joined: Joined, adapter: Adapter, module: str) -> None:
    """Experts in one tensor [E, d1, d2]: rows of A are sorted by expert, columns of B by rank."""
    experts = module.removesuffix(".base_layer")
    name = f"{experts}.{EXPERTS[not module.endswith('.base_layer')]}"
    count, d1, _ = joined.base[name].shape
    a, b = factors_of(adapter, module)
    scale = adapter.weight * models.scale_of(adapter.config, name)
    for expert in range(count):
        rank = a.shape[0] // count
        one_a, one_b = a[expert * rank : (expert + 1) * rank], b[:, expert::count]
        left, right = (one_a.T, one_b.T) if a.shape[1] == d1 else (one_b, one_a)
        joined.edits.setdefault(name, []).append(Edit(left, right, scale, first=expert * d1))

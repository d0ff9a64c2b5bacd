"""Does a live model hold changes that neither its base nor its adapter has?"""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafold._errors import UsageError

DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
HEADER_BYTES_MAX = 100_000_000  # the limit of the format
RUN = 256  # elements compared at a place
PLACES = 3  # of a tensor: its beginning, middle and end
PLACES_TRAINABLE = 64
# Modules of an adapter, and what they have put aside.
NOT_BASE = (".lora_", ".modules_to_save.", ".original_module.", "trainable_tokens_")


@dataclass
class Stored:
    """A tensor of a safetensors file."""

    path: Path
    dtype: str
    shape: list[int]
    offset: int  # bytes in the file


def read_header(path: Path) -> Iterator[tuple[str, Stored]]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > HEADER_BYTES_MAX:
            return
        header = json.loads(file.read(size))
    for name, one in header.items():
        if name != "__metadata__":
            yield name, Stored(path, one["dtype"], one["shape"], 8 + size + one["data_offsets"][0])


def read_base(directory: Path) -> dict[str, Stored]:
    """The tensors of a model directory; none where it is not as it should be, which others report."""
    index = directory / "model.safetensors.index.json"
    try:
        if index.is_file():
            names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        else:
            names = ["model.safetensors"]
        return {name: one for file in names for name, one in read_header(directory / file)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        return {}


def base_name(name: str) -> str | None:
    """The name in the base's files, if the parameter is one of the base."""
    if any(part in f".{name}" for part in NOT_BASE):
        return None
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def is_wrapped(module: Any) -> bool:
    """Does the adapter save this module whole, or some of its rows?"""
    return hasattr(module, "modules_to_save") or hasattr(module, "token_adapter")


def weight_of(module: Any) -> Any:
    return getattr(getattr(module, "base_layer", module), "weight", None)


def embeddings(model: Any) -> list[Any]:
    """Input and output embeddings, as far as the model has them."""
    found = []
    for get in (model.get_input_embeddings, model.get_output_embeddings):
        try:
            found.append(get())
        except (AttributeError, NotImplementedError):
            pass
    return [one for one in found if one is not None]


def are_resized(model: Any, stored: dict[str, Stored]) -> bool:
    """Have the embeddings other rows than in the base, and does the adapter not save them?

    Then PEFT has to save them whole, so that they become part of the adapter.
    """
    names = {id(one): base_name(name) for name, one in model.named_parameters()}
    for layer in embeddings(model):
        weight = weight_of(layer)
        before = stored.get(names.get(id(weight)) or "")
        if weight is None or before is None or is_wrapped(layer) or weight.dim() != 2:
            continue
        if weight.numel() and list(weight.shape) != before.shape:
            return True
    return False


def is_saved_bias(model: Any, adapters: list[str], name: str) -> bool:
    """Does an adapter bring this bias of the base along?"""
    kinds = {getattr(model.peft_config[adapter], "bias", "none") for adapter in adapters}
    return name.endswith(".bias") and ("all" in kinds or ("lora_only" in kinds and ".base_layer." in name))


def check_unchanged(model: Any, adapters: list[str], stored: dict[str, Stored], left_out: bool) -> None:
    """Compare samples of the base's weights in memory with the files.

    left_out: the embeddings are saved whole, so they may differ.
    UsageError names the first that differs.  What is quantised, converted, elsewhere than in
    memory, or has another name than in the file is passed over.
    """
    torch = sys.modules["torch"]
    embedded = {id(weight_of(layer)) for layer in embeddings(model)} if left_out else set()
    for name, parameter in model.named_parameters():
        plain = base_name(name)
        before = stored.get(plain or "")
        if before is None or id(parameter) in embedded or is_saved_bias(model, adapters, name):
            continue
        if not is_comparable(torch, parameter, before):
            continue
        is_cut = sorted(parameter.shape) != sorted(before.shape)  # pruned, or grown
        if is_cut or differs(torch, parameter, before):
            raise UsageError(f"'{plain}' of this model is neither as in its base nor part of its adapter, so the change "
                             "would be lost: name its module in modules_to_save when the adapter is made, or fold the "
                             "adapter alone with lorafold.merge()")


def is_comparable(torch: Any, parameter: Any, before: Stored) -> bool:
    """Plain numbers, here, as many as in the file and not in another arrangement."""
    return (
        isinstance(before.dtype, str)
        and before.dtype in DTYPES
        and type(parameter) in (torch.nn.Parameter, torch.Tensor)
        and parameter.dtype in (torch.bfloat16, torch.float16, torch.float32)
        and parameter.device.type != "meta"
        and parameter.numel() > 0
        and parameter.dim() == len(before.shape)
        and (list(parameter.shape) == before.shape or sorted(parameter.shape) != sorted(before.shape))
    )


def differs(torch: Any, parameter: Any, before: Stored) -> bool:
    dtype = getattr(torch, DTYPES[before.dtype])
    count, width = parameter.numel(), dtype.itemsize
    places = PLACES_TRAINABLE if parameter.requires_grad else PLACES
    run = min(RUN, count)
    flat = parameter.detach().reshape(-1)
    descriptor = os.open(before.path, os.O_RDONLY)
    try:
        for begin in sorted({(count - run) * i // (places - 1) for i in range(places)}):
            data = bytearray(os.pread(descriptor, run * width, before.offset + begin * width))
            if len(data) != run * width:
                return False  # a file that is cut off is reported by who reads it all
            then = torch.frombuffer(data, dtype=dtype)
            if not is_rounding(torch, flat[begin : begin + run].cpu(), then):
                return True
    finally:
        os.close(descriptor)
    return False


def is_rounding(torch: Any, now: Any, then: Any) -> bool:
    """Is the one the other, perhaps in another dtype, or by way of one?"""
    ways = (then, then.to(torch.bfloat16), then.to(torch.float16))
    return any(torch.equal(now.float(), way.to(now.dtype).float()) for way in ways)

"""The adapters of a live PEFT model, written by the model itself."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorafold._errors import UsageError

WEIGHTS = "adapter_model.safetensors"


def unwrap(model: Any) -> Any:
    """The model inside the wrappers of torch.compile and of data parallelism."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif type(model).__name__ in ("DistributedDataParallel", "DataParallel", "DeepSpeedEngine"):
            model = model.module
        else:
            return model


def check_is_peft(model: Any) -> None:
    """UsageError for a model that holds no adapter which could be saved."""
    peft = sys.modules.get("peft")  # imported already, if the model is one of its own
    if peft is not None and isinstance(model, peft.PeftModel):
        return
    name = type(model).__name__
    if getattr(model, "_hf_peft_config_loaded", False):
        raise UsageError(f"this {name} holds its adapter by transformers' own means: save it with model.save_pretrained(DIR) "
                         "and give DIR here instead of the model")
    if hasattr(model, "save_pretrained"):
        raise UsageError(f"this {name} holds no adapter (was it merged, or trained as a whole?), so there is nothing to "
                         "fold; model.save_pretrained() writes it as it is")
    raise TypeError(f"model is a PEFT model or the path of an adapter, not {name}")


def active_adapters(model: Any) -> list[str]:
    """The adapters that act in the model, in their order.

    UsageError where the model computes something else than base and these adapters.
    """
    peft = sys.modules["peft"]
    try:
        status = peft.get_model_status(model)
    except (TypeError, ValueError) as error:
        kinds = ", ".join(sorted({str(one.peft_type).rpartition(".")[2] for one in model.peft_config.values()}))
        raise UsageError(f"an adapter of type {kinds} cannot be folded into weights: {error}") from None
    if status.enabled is not True:
        raise UsageError("the adapters of this model are disabled (at least in part), so it computes what its base does; "
                         "model.enable_adapter_layers() enables them")
    if status.merged_adapters:
        raise UsageError("adapters are merged into this model's weights at the moment; call model.unmerge_adapter() first")
    if status.active_adapters == "irregular":
        raise UsageError("not all layers of this model have the same active adapters; model.set_adapter(NAME) makes them")
    active = [name for name in status.active_adapters if name in model.peft_config]
    if not active:
        raise UsageError("no adapter of this model is active; model.set_adapter(NAME) activates one")
    check_scales(model, active)
    return active


def check_scales(model: Any, active: list[str]) -> None:
    """A scale that was changed after training is in no file."""
    for name, module in model.named_modules():
        scaling, ranks = getattr(module, "scaling", None), getattr(module, "r", None)
        if not isinstance(scaling, dict) or not isinstance(ranks, dict):
            continue
        for adapter in active:
            if adapter not in scaling or not ranks.get(adapter):
                continue
            rank, alpha = ranks[adapter], module.lora_alpha[adapter]
            root = getattr(model.peft_config[adapter], "use_rslora", False)
            expected = alpha / (math.sqrt(rank) if root else rank)
            if not math.isclose(scaling[adapter], expected, rel_tol=1e-6):
                raise UsageError(f"adapter '{adapter}' was rescaled in '{name}' ({scaling[adapter]:g}, its configuration says "
                                 f"{expected:g}); save it and give lorafold.merge() its directory and a weight")


def is_factor(name: str) -> bool:
    return ".lora_" in name or "trainable_tokens_" in name or ".modules_to_save." in name


def names_adapter(name: str, adapter: str) -> bool:
    """Is this a name inside the model, with the adapter's, and not one of a file?"""
    return is_factor(name) and adapter in name.split(".")


def write(model: Any, adapters: list[str], directory: Path, state_dict: Mapping[str, Any] | None,
          save_embeddings: bool) -> list[Path]:
    """Write the adapters below the directory; the paths, in order.

    state_dict: None, or tensors that stand for the model's own: all of them by their names inside
    the model, or those of one adapter by their names in its file.
    """
    named = state_dict
    if state_dict is not None and not any(names_adapter(key, one) for one in adapters for key in state_dict):
        if not any(is_factor(key) for key in state_dict):
            raise UsageError("the state_dict holds no tensor of an adapter; a whole model is saved by "
                             "model.save_pretrained(), and its base is not needed here")
        if len(adapters) != 1:
            raise UsageError(f"the state_dict is that of one adapter, and {len(adapters)} are active")
        named = None
    paths = []
    for adapter in adapters:
        parent = directory / (adapter if adapter != "default" else "adapter")
        more = {} if named is None else {"state_dict": dict(named)}
        model.save_pretrained(str(parent), selected_adapters=[adapter], save_embedding_layers=save_embeddings, **more)
        paths.append(parent if adapter == "default" else parent / adapter)
    if state_dict is not None and named is None:
        replace_weights(paths[0] / WEIGHTS, state_dict)
    return paths


def replace_weights(path: Path, tensors: Mapping[str, Any]) -> None:
    """Other values for the tensors of the file.  UsageError if the names are not the same."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(str(path), framework="pt") as file:
        wanted = set(file.keys())
    if wanted != set(tensors):
        odd = min(wanted ^ set(tensors))
        who = "the state_dict lacks" if odd in wanted else "the adapter does not have"
        raise UsageError(f"{who} '{odd}': the names in the state_dict must be those of the adapter")
    save_file({name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}, str(path))

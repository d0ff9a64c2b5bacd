"""Put our calls where people look for them: as methods of models."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from lorafold._save import push_to_hub_merged, save_pretrained_merged

METHODS: dict[str, Callable[..., Any]] = {"save_pretrained_merged": save_pretrained_merged, "push_to_hub_merged": push_to_hub_merged}


def attach(model: Any) -> Any:
    """Give this model the methods save_pretrained_merged and push_to_hub_merged; returns the model.

    They take the place of methods of these names, such as Unsloth's.
    """
    for name, function in METHODS.items():
        setattr(model, name, types.MethodType(function, model))
    return model


def patch() -> None:
    """Give all models of PEFT these methods, and those that Unsloth makes from now on.

    Models that Unsloth has made before keep its methods: attach() is for them.
    """
    import peft

    for name, function in METHODS.items():
        setattr(peft.PeftModel, name, function)
    unsloth = sys.modules.get("unsloth.save")
    if unsloth is not None:
        # What it binds to each model that it makes.
        for name, function in METHODS.items():
            setattr(unsloth, f"unsloth_generic_{name}", function)

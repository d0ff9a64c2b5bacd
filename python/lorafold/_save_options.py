"""The parameters of save_pretrained_merged: each is honoured, or refused with one sentence."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lorafold._errors import UsageError
from lorafold._options import Path, Size

METHODS = ("merged_16bit", "merged_4bit", "merged_4bit_forced", "lora", "same")
MEMORY_BYTES = 128 * 2**20
FRACTION_MAX = 0.95
DEFAULT_SHARD = "5GB"
# As torch and as lorafold name them.
DTYPES = {"None": "keep", "bfloat16": "bf16", "float16": "f16", "float32": "f32"}
# Who writes files one tensor at a time; lorafold does that itself.
WRITERS = ("torch", "accelerate", "transformers")


@dataclass
class SaveOptions:
    """What was asked for, with the defaults of the calls."""

    save_method: str = "merged_16bit"
    push_to_hub: bool = False
    token: str | bool | None = None
    state_dict: Mapping[str, Any] | None = None
    save_function: Any = None
    max_shard_size: Size | None = DEFAULT_SHARD
    safe_serialization: bool | None = True
    variant: str | None = None
    save_peft_format: bool = True
    tags: list[str] | str | None = None
    temporary_location: Path | None = None
    maximum_memory_usage: float = 0.75
    datasets: list[str] | str | None = None
    base: Path | None = None
    repo_id: str | None = None
    private: bool | None = None
    revision: str | None = None
    create_pr: bool = False
    commit_message: str | None = None
    commit_description: str | None = None
    use_temp_dir: bool | None = None
    calibration_dataset: Any = None
    num_calibration_samples: int = 512
    max_seq_length: int = 2048
    install_missing_dependencies: bool = True  # nothing is ever installed
    dtype: Any = None
    no_local: bool = False  # of push_to_hub_merged()

    def __post_init__(self) -> None:
        """None stands for the default where Unsloth's call says so."""
        if self.safe_serialization is None:
            self.safe_serialization = True
        if self.max_shard_size is None:
            self.max_shard_size = DEFAULT_SHARD


# Without push_to_hub these would do nothing.
ONLY_PUSH = ("tags", "private", "revision", "create_pr", "commit_message", "commit_description", "datasets", "repo_id", "no_local")
# Of the exports that calibrate.
ONLY_CALIBRATION = ("calibration_dataset", "num_calibration_samples", "max_seq_length")
DEFAULTS = {one.name: one.default for one in fields(SaveOptions)}


def check(options: SaveOptions) -> None:
    """Raise UsageError for what cannot be done, TypeError for what cannot be meant."""
    if not isinstance(options.save_method, str):
        raise TypeError(f"save_method is a string, not {type(options.save_method).__name__}")
    if options.save_method not in METHODS:
        raise UsageError(f"save_method {options.save_method!r} is not known; it is one of: {', '.join(METHODS)}")
    if not options.push_to_hub:
        for name in ONLY_PUSH:
            if getattr(options, name) != DEFAULTS[name]:
                raise UsageError(f"{name} is for a push: give push_to_hub=True as well, or leave it out")
    for name in ONLY_CALIBRATION:
        if getattr(options, name) != DEFAULTS[name]:
            raise UsageError(f"{name} is for exports that calibrate, which lorafold does not make")
    if not options.save_peft_format:
        raise UsageError("save_peft_format=False is not supported: an adapter is written as PEFT names its tensors")
    if options.use_temp_dir is False:
        raise UsageError("use_temp_dir=False is not supported: what is kept is written by save_pretrained_merged()")
    if dtype_name(options.dtype) not in DTYPES:
        raise UsageError(f"dtype {options.dtype!r} is none of None, bfloat16, float16 and float32")
    check_writer(options.save_function)
    check_fraction(options.maximum_memory_usage)


def dtype_name(dtype: Any) -> str:
    """Of a dtype of torch, or its name."""
    return str(dtype).removeprefix("torch.")


def check_writer(function: Any) -> None:
    """torch.save and accelerate's save are what scripts pass; another function would have to be called."""
    module = getattr(function, "__module__", None) or ""
    is_known = getattr(function, "__name__", None) == "save" and module.split(".")[0] in WRITERS
    if function is not None and not is_known:
        raise UsageError("save_function cannot be called: lorafold writes block by block and never has a whole tensor")


def check_fraction(fraction: float) -> None:
    if not isinstance(fraction, (int, float)) or not 0 < fraction <= FRACTION_MAX:
        raise UsageError(f"maximum_memory_usage {fraction!r} is not a fraction above 0 and up to {FRACTION_MAX}")


def available_bytes() -> int:
    """Memory that this machine could give, or what it has where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_budget(options: SaveOptions) -> int:
    """Bytes: what lorafold takes anyway, or the fraction of what is available if that is less."""
    return min(MEMORY_BYTES, int(options.maximum_memory_usage * available_bytes()))


def merge_options(options: SaveOptions, tokenizer: Path | None) -> dict[str, Any]:
    """What goes to the library."""
    return {
        "save_method": options.save_method,
        "dtype": DTYPES[dtype_name(options.dtype)],
        "max_shard_size": options.max_shard_size,
        "memory": memory_budget(options),
        "gpu_memory": float(options.maximum_memory_usage),
        "safe_serialization": options.safe_serialization,
        "variant": options.variant,
        "tokenizer": tokenizer,
        "token": options.token,
    }


def push_options(options: SaveOptions, repo_id: str) -> dict[str, Any]:
    """What of that is about the push."""
    names = ("no_local", "private", "create_pr", "revision", "commit_message", "commit_description", "tags", "datasets")
    return {name: getattr(options, name) for name in names} | {"push_to_hub": repo_id}

"""Options of a merge: their names in Python, and the fields of struct lorafold_merge_options."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Union

from lorafold import _library as lib
from lorafold._errors import UsageError

Path = Union[str, "os.PathLike[str]"]
AdapterLike = Union[Path, tuple[Path, float]]
Size = Union[int, str]


class MergeOptions(TypedDict, total=False):
    """Options of merge() and plan(); each has the meaning of the program's option of that name.

    tokenizer: directory whose tokenizer files are taken, before those of adapter and base.
    save_method: "merged_16bit" (default), "merged_4bit" or "merged_4bit_forced", "lora", "same".
    base_numerics: "auto" (default), "original", "dequantised" or "nf4-roundtrip": which numbers of
        a quantised base count.
    original_base: its 16-bit model, a directory or org/name.
    quant_type, single_quant, skip: of merged_4bit: "nf4" (default) or "fp4"; True: absmax stay
        fp32; modules that stay in 16 bits, by name or the end of it.
    dtype: "keep" (default, dtypes as in the base), "bf16", "f16", "f32".
    tied: "exact" (default) or "shared", for an adapter that changes one side of tied embeddings.
    lora_b_layout: "auto" (default), "rank-major", "expert-major": columns of B of fused experts.
    max_shard_size: bytes of tensor data per file, as a number or like "5GB" (default).
    memory: ceiling on what the merge takes, in bytes or like "128MiB" (default).
    threads: workers; 0 (default): one per processor, or what keeps a GPU busy.
    device: "auto" (default), "cpu", "cuda", "cuda:N": what computes.
    gpu_memory: ceiling on the GPU's memory, as a size or a fraction of what is free (default 0.75).
    trace: a file that gets a timeline of the run, for ui.perfetto.dev.
    clone: "auto" (default), "never" or "always": what no adapter touches shares the storage of the
        base where the file system can do that; "always" raises where it cannot.
    overwrite: replace an existing model directory, in one step at the end.
    allow_unused: adapter tensors that cannot be folded are listed, not refused.
    allow_nonfinite: NaN and infinite results are written, not refused.
    strict: warnings that may mean a wrong merge are refusals.
    variant: part of the names of the files, model.VARIANT.safetensors, as from_pretrained(variant=)
        looks for them; None (default): none.
    safe_serialization: True (default), safetensors; False: files of torch.save(), pytorch_model.bin.
    token: of the Hub; None (default): as the Hugging Face tools find it; False: none.
    token_file: a file that holds it.
    offline: the Hub is asked nothing, as with HF_HUB_OFFLINE=1.
    push_to_hub: org/name to push the output to: shards while others are made, one commit at the end.
    no_local: keep no output; a shard is removed once the Hub has it, and at most two are there.
    private, revision, create_pr, commit_message, commit_description, tags, datasets: of the push.
    io_engine, io_direct, kernels: force one of several equal ways, for tests.
    """

    tokenizer: Path | None
    save_method: str
    base_numerics: Literal["auto", "original", "dequantised", "nf4-roundtrip"]
    original_base: Path | None
    quant_type: Literal["nf4", "fp4"]
    single_quant: bool
    skip: Sequence[str]
    dtype: Literal["keep", "bf16", "f16", "f32"]
    tied: Literal["exact", "shared"]
    lora_b_layout: Literal["auto", "rank-major", "expert-major"]
    max_shard_size: Size
    memory: Size
    threads: int
    device: str
    gpu_memory: Size | float
    trace: Path | None
    clone: Literal["auto", "never", "always"]
    overwrite: bool
    allow_unused: bool
    allow_nonfinite: bool
    strict: bool
    variant: str | None
    safe_serialization: bool
    token: str | bool | None
    token_file: Path | None
    offline: bool
    push_to_hub: str | None
    no_local: bool
    private: bool | None
    revision: str | None
    create_pr: bool
    commit_message: str | None
    commit_description: str | None
    tags: Sequence[str]
    datasets: Sequence[str]
    io_engine: str | None
    io_direct: str | None
    kernels: str | None


SAVE_METHODS = {"merged_16bit": 0, "merged_4bit": 1, "merged_4bit_forced": 1, "lora": 2, "same": 3}

# Option -> field and the names of its values.
NAMED: dict[str, tuple[str, dict[str, int]]] = {
    "save_method": ("save_method", SAVE_METHODS),
    "base_numerics": ("base_numerics", {"auto": 0, "original": 1, "dequantised": 2, "nf4-roundtrip": 3}),
    "quant_type": ("quant_type", {"nf4": 0, "fp4": 1}),
    "dtype": ("dtype", {"keep": 0, "bf16": 1, "f16": 2, "f32": 3}),
    "tied": ("tied", {"exact": 0, "shared": 1}),
    "clone": ("clone", {"auto": 0, "never": 1, "always": 2}),
    "lora_b_layout": ("b_layout", {"auto": 0, "rank-major": 1, "expert-major": 2}),
}
SIZES = {"max_shard_size": "max_shard_bytes", "memory": "memory_bytes"}
TEXTS = {"tokenizer", "original_base", "variant", "device", "trace", "io_engine", "io_direct", "kernels"}
FLAGS = {"overwrite", "allow_unused", "allow_nonfinite", "strict", "single_quant", "safe_serialization"}

HUB = ("token", "token_file", "offline")
PUSH_TEXTS = ("revision", "commit_message", "commit_description")
PUSH = ("push_to_hub", "no_local", "private", "create_pr", "tags", "datasets", *PUSH_TEXTS)


def parse_size(text: Size, option: str) -> int:
    """Bytes, from a number or a text like "5GB" (decimal) or "128MiB"."""
    value = ctypes.c_uint64()
    if not lib.library().lorafold_parse_size(str(text).encode(), ctypes.byref(value)):
        raise UsageError(f"{option} {text!r} is not a size; sizes are numbers of bytes, '5GB' or '128MiB'")
    return value.value


def choose(option: str, value: str, values: dict[str, int]) -> int:
    if value not in values:
        raise UsageError(f"{option} {value!r} is not known; it is one of: {', '.join(values)}")
    return values[value]


def encode(path: Path, what: str) -> bytes:
    """As C takes it.  TypeError if it is no path."""
    text = os.fsencode(path)
    if b"\0" in text:
        raise UsageError(f"{what} {path!r} holds a zero byte")
    return text


def set_gpu_memory(fields: Any, value: Size | float) -> None:
    """A fraction of what is free, up to 1, or a size."""
    if isinstance(value, float):
        if not 0 < value <= 1:
            raise UsageError(f"gpu_memory {value!r} is not a fraction above 0 and up to 1")
        fields.gpu_memory_fraction = value
    else:
        fields.gpu_memory_bytes = parse_size(value, "gpu_memory")


def set_option(fields: Any, name: str, value: Any) -> None:
    """Put one option into the structure.  UsageError if it is not known or has no such value."""
    if name in NAMED:
        field, values = NAMED[name]
        setattr(fields, field, choose(name, value, values))
    elif name == "gpu_memory":
        set_gpu_memory(fields, value)
    elif name in SIZES:
        setattr(fields, SIZES[name], parse_size(value, name))
    elif name in TEXTS:
        setattr(fields, name, None if value is None else encode(value, name))
    elif name in FLAGS:
        setattr(fields, name, bool(value))
    elif name == "skip":
        set_skip(fields, value)
    elif name == "threads":
        if not 0 <= value < 2**31:
            raise UsageError(f"threads {value!r} is not a number of threads")
        fields.threads = value
    else:
        raise TypeError(f"there is no option {name!r}")


def set_hub(hub: Any, token: str | bool | None, token_file: Path | None, offline: bool) -> None:
    """How the Hub is reached; None and True: with the token that the Hugging Face tools find."""
    if isinstance(token, str) or token is False:
        hub.token = encode(token or "", "token")
    hub.token_file = None if token_file is None else encode(token_file, "token_file")
    hub.offline = offline
    if importlib.util.find_spec("lorafold_hub") is not None:  # this installation's, run by this Python
        words = [os.fsencode(sys.executable), b"-m", b"lorafold_hub", None]
        hub.helper = (ctypes.c_char_p * len(words))(*words)


def set_destination(fields: Any, options: Any) -> None:
    """Where the output is pushed to; what belongs to a push is refused without one."""
    given = {name: options[name] for name in PUSH if options.get(name)}
    repo = given.pop("push_to_hub", None)
    if repo is None and given:
        raise UsageError(f"{next(iter(given))} is for a push: give push_to_hub as well")
    to = fields.push_to
    to.repo = None if repo is None else encode(repo, "push_to_hub")
    fields.no_local, to.is_private, to.create_pr = (bool(given.get(name)) for name in ("no_local", "private", "create_pr"))
    for name in PUSH_TEXTS:
        setattr(to, name, encode(given[name], name) if name in given else None)
    to.tags, to.tag_count = texts(given.get("tags"), "tags")
    to.datasets, to.dataset_count = texts(given.get("datasets"), "datasets")


def texts(values: Sequence[str] | None, what: str) -> tuple[Any, int]:
    """A list of strings as C takes it; one string is a list of one."""
    words = [encode(one, what) for one in ([values] if isinstance(values, str) else values or ())]
    return (ctypes.c_char_p * len(words))(*words), len(words)


def set_skip(fields: Any, modules: Sequence[str]) -> None:
    if isinstance(modules, str):
        raise TypeError("skip is a sequence of names of modules, not one string")
    names = [encode(one, "skip") for one in modules]
    fields.skip = (ctypes.c_char_p * len(names))(*names)
    fields.skip_count = len(names)


def read_adapters(adapters: AdapterLike | Sequence[AdapterLike]) -> list[lib.Adapter]:
    """One adapter, (adapter, weight), or a sequence of these."""
    several: Any = [adapters] if isinstance(adapters, (str, os.PathLike)) or is_weighted(adapters) else adapters
    pairs = [one if isinstance(one, tuple) else (one, 1.0) for one in several]
    return [lib.Adapter(encode(path, "adapter"), float(weight)) for path, weight in pairs]


def is_weighted(one: object) -> bool:
    return isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], (int, float))


def make_options(base: Path | None, adapters: Any, out: Path | None, options: MergeOptions) -> Any:
    """The filled structure; it keeps what it points to."""
    fields = lib.MergeOptionsStruct()
    lib.library().lorafold_merge_options_init(ctypes.byref(fields))
    pairs = read_adapters(adapters)
    fields.base = None if base is None else encode(base, "base")
    fields.adapters = (lib.Adapter * len(pairs))(*pairs)
    fields.adapter_count = len(pairs)
    fields.output = None if out is None else encode(out, "output")
    set_hub(fields.hub, options.get("token"), options.get("token_file"), bool(options.get("offline")))
    set_destination(fields, options)
    for name, value in options.items():
        if name in HUB or name in PUSH:
            continue
        set_option(fields, name, value)
    return fields

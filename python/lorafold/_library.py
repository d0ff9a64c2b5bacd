"""lorafold.h for ctypes: structures, functions, and where the shared library is."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import CFUNCTYPE, POINTER, Structure, c_bool, c_char, c_char_p, c_double, c_int, c_size_t
from ctypes import c_uint, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from lorafold._errors import error_of

LIBRARY = "liblorafold.so"
LEVELS = ("warning", "notice", "detail")
LIMITS = ("read", "compute", "write", "download", "upload", "prepare")
TEXT, JSON = 0, 1


class Error(Structure):
    _fields_ = [("code", c_int), ("text", c_char * 1024)]


class ProgressStruct(Structure):
    _fields_ = [
        ("bytes_done", c_uint64),
        ("bytes_total", c_uint64),
        ("seconds", c_double),
        ("limit", c_int),
        ("file", c_char_p),
        ("outputs_done", c_size_t),
        ("outputs_total", c_size_t),
    ]


class Adapter(Structure):
    _fields_ = [("path", c_char_p), ("weight", c_double)]


MESSAGE_FUNCTION = CFUNCTYPE(None, c_void_p, c_int, c_char_p)
PROGRESS_FUNCTION = CFUNCTYPE(None, c_void_p, POINTER(ProgressStruct))


class HubStruct(Structure):
    _fields_ = [
        ("token_file", c_char_p),
        ("token", c_char_p),
        ("helper", POINTER(c_char_p)),
        ("offline", c_bool),
    ]


class DestinationStruct(Structure):
    _fields_ = [
        ("repo", c_char_p),
        ("revision", c_char_p),
        ("is_private", c_bool),
        ("create_pr", c_bool),
        ("commit_message", c_char_p),
        ("commit_description", c_char_p),
        ("tags", POINTER(c_char_p)),
        ("tag_count", c_size_t),
        ("datasets", POINTER(c_char_p)),
        ("dataset_count", c_size_t),
    ]


class MergeOptionsStruct(Structure):
    _fields_ = [
        ("base", c_char_p),
        ("adapters", POINTER(Adapter)),
        ("adapter_count", c_size_t),
        ("output", c_char_p),
        ("tokenizer", c_char_p),
        ("save_method", c_int),
        ("base_numerics", c_int),
        ("original_base", c_char_p),
        ("quant_type", c_int),
        ("single_quant", c_bool),
        ("skip", POINTER(c_char_p)),
        ("skip_count", c_size_t),
        ("dtype", c_int),
        ("tied", c_int),
        ("b_layout", c_int),
        ("max_shard_bytes", c_uint64),
        ("memory_bytes", c_uint64),
        ("threads", c_uint),
        ("device", c_char_p),
        ("gpu_memory_bytes", c_uint64),
        ("gpu_memory_fraction", c_double),
        ("trace", c_char_p),
        ("clone", c_int),
        ("overwrite", c_bool),
        ("allow_unused", c_bool),
        ("allow_nonfinite", c_bool),
        ("strict", c_bool),
        ("safe_serialization", c_bool),
        ("variant", c_char_p),
        ("hub", HubStruct),
        ("push_to", DestinationStruct),
        ("no_local", c_bool),
        ("plan_only", c_bool),
        ("cancel", POINTER(c_int)),
        ("message", MESSAGE_FUNCTION),
        ("progress", PROGRESS_FUNCTION),
        ("context", c_void_p),
        ("io_engine", c_char_p),
        ("io_direct", c_char_p),
        ("kernels", c_char_p),
    ]


class PushReportStruct(Structure):
    _fields_ = [
        ("repo", c_char * 256),
        ("url", c_char * 512),
        ("pull_request", c_char * 512),
        ("file_count", c_size_t),
        ("bytes", c_uint64),
        ("seconds", c_double),
    ]


class ReportStruct(Structure):
    _fields_ = [
        ("bytes_read", c_uint64),
        ("bytes_written", c_uint64),
        ("bytes_cloned", c_uint64),
        ("tensors_folded", c_size_t),
        ("tensors_replaced", c_size_t),
        ("tensors_patched", c_size_t),
        ("tensors_copied", c_size_t),
        ("tensors_converted", c_size_t),
        ("file_count", c_size_t),
        ("seconds", c_double),
        ("seconds_planning", c_double),
        ("seconds_to_first_write", c_double),
        ("share_read", c_double),
        ("share_compute", c_double),
        ("share_write", c_double),
        ("memory_peak_bytes", c_uint64),
        ("cgroup_peak_bytes", c_uint64),
        ("io_engine", c_char_p),
        ("io_direct", c_bool),
        ("kernels", c_char_p),
        ("threads", c_uint),
        ("device", c_char * 256),
        ("device_bytes", c_uint64),
        ("output", c_char * 4096),
        ("pushed", PushReportStruct),
    ]


class FetchOptionsStruct(Structure):
    _fields_ = [
        ("hub", HubStruct),
        ("cancel", POINTER(c_int)),
        ("message", MESSAGE_FUNCTION),
        ("progress", PROGRESS_FUNCTION),
        ("context", c_void_p),
    ]


class PushOptionsStruct(Structure):
    _fields_ = [("to", DestinationStruct), *FetchOptionsStruct._fields_]


class VerifyOptionsStruct(Structure):
    _fields_ = [
        ("memory_bytes", c_uint64),
        ("threads", c_uint),
        ("deep", c_bool),
        ("base", c_char_p),
        ("cancel", POINTER(c_int)),
        ("message", MESSAGE_FUNCTION),
        ("progress", PROGRESS_FUNCTION),
        ("context", c_void_p),
        ("io_direct", c_char_p),
    ]


class VerifyReportStruct(Structure):
    _fields_ = [
        ("file_count", c_size_t),
        ("bytes", c_uint64),
        ("bytes_shared", c_uint64),
        ("bytes_unread", c_uint64),
        ("seconds", c_double),
        ("output_count", c_size_t),
    ]


# Name of the structure in lorafold.h -> ours; a test compares them with the header.
STRUCTURES: dict[str, type[Structure]] = {
    "lorafold_error": Error,
    "lorafold_progress": ProgressStruct,
    "lorafold_adapter": Adapter,
    "lorafold_hub": HubStruct,
    "lorafold_merge_options": MergeOptionsStruct,
    "lorafold_report": ReportStruct,
    "lorafold_fetch_options": FetchOptionsStruct,
    "lorafold_destination": DestinationStruct,
    "lorafold_push_report": PushReportStruct,
    "lorafold_push_options": PushOptionsStruct,
    "lorafold_verify_options": VerifyOptionsStruct,
    "lorafold_verify_report": VerifyReportStruct,
}

# Name of the function, without "lorafold_" -> its result and its arguments.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "version": (c_char_p, []),
    "free": (None, [c_void_p]),
    "parse_size": (c_bool, [c_char_p, POINTER(c_uint64)]),
    "merge_options_init": (None, [POINTER(MergeOptionsStruct)]),
    "merge_open": (c_int, [POINTER(c_void_p), POINTER(MergeOptionsStruct), POINTER(Error)]),
    "merge_describe": (c_void_p, [c_void_p, c_int]),
    "merge_run": (c_int, [c_void_p, POINTER(Error)]),
    "merge_cancel": (None, [c_void_p]),
    "merge_report": (None, [c_void_p, POINTER(ReportStruct)]),
    "report_describe": (c_void_p, [POINTER(ReportStruct), c_int]),
    "merge_close": (None, [c_void_p]),
    "batch_create": (c_int, [POINTER(c_void_p), POINTER(MergeOptionsStruct), c_uint, POINTER(Error)]),
    "batch_add": (c_int, [c_void_p, c_char_p, POINTER(MergeOptionsStruct), POINTER(Error)]),
    "batch_open": (c_int, [c_void_p, POINTER(Error)]),
    "batch_run": (c_int, [c_void_p, POINTER(Error)]),
    "batch_cancel": (None, [c_void_p]),
    "batch_summary": (c_void_p, [c_void_p, c_int]),
    "batch_close": (None, [c_void_p]),
    "verify_options_init": (None, [POINTER(VerifyOptionsStruct)]),
    "verify": (c_int, [c_char_p, POINTER(VerifyOptionsStruct), POINTER(VerifyReportStruct), POINTER(Error)]),
    "fetch_options_init": (None, [POINTER(FetchOptionsStruct)]),
    "fetch": (c_int, [c_char_p, POINTER(FetchOptionsStruct), POINTER(c_void_p), POINTER(Error)]),
    "push_options_init": (None, [POINTER(PushOptionsStruct)]),
    "push": (c_int, [c_char_p, POINTER(PushOptionsStruct), POINTER(PushReportStruct), POINTER(Error)]),
    "push_describe": (c_void_p, [POINTER(PushReportStruct), c_int]),
    "inspect": (c_int, [c_char_p, c_int, c_bool, POINTER(c_void_p), POINTER(Error)]),
}


def library_path() -> Path:
    """LORAFOLD_LIBRARY, for those who build without installing, or the file beside this one."""
    named = os.environ.get("LORAFOLD_LIBRARY")
    return Path(named) if named else Path(__file__).resolve().parent / LIBRARY


@functools.cache
def library() -> Any:
    """The shared library, loaded at the first call.  ImportError if it is missing or of another version."""
    from lorafold import __version__

    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"the library of lorafold cannot be loaded: {error}") from None
    loaded.lorafold_version.restype, loaded.lorafold_version.argtypes = FUNCTIONS["version"]
    found = loaded.lorafold_version().decode()
    if found != __version__:  # before the others, which another version may not have
        raise ImportError(f"'{path}' is lorafold {found}, and this package is {__version__}: install both anew")
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(loaded, f"lorafold_{name}")
        function.restype, function.argtypes = result, arguments
    return loaded


def check(status: int, error: Error) -> None:
    """Raise what a status of the library means."""
    if status:
        raise error_of(status, decode(error.text))


def decode(text: bytes | None) -> str:
    """Paths may hold bytes that are not UTF-8; they go in and out as Python's os.fsdecode has it."""
    return os.fsdecode(text or b"")


def take_text(pointer: int | None) -> str:
    """A text of the library, which is freed."""
    if not pointer:
        raise MemoryError("no memory for a text")
    try:
        return decode(ctypes.string_at(pointer))
    finally:
        library().lorafold_free(pointer)

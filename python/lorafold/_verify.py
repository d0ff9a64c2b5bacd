"""verify() and inspect()."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import json
from typing import Any

from lorafold import _library as lib
from lorafold._options import Path, Size, encode, parse_size
from lorafold._progress import MessageFunction, ShowProgress
from lorafold._records import VerifyReport
from lorafold._work import Callbacks, run


def verify(
    out: Path,
    *,
    deep: bool = False,
    base: Path | None = None,
    memory: Size = "128MiB",
    threads: int = 0,
    progress: ShowProgress = None,
    message: MessageFunction | None = None,
) -> VerifyReport:
    """Re-read every file that lorafold.json in the directory `out` names; compare sizes and digests.

    deep: also compare what was cloned from the base, of which there are no digests, with the base:
        `base`, or None, where lorafold.json says (in the cache, or else beside `out`).
    memory, threads, progress, message: as for merge().

    Raises DifferenceError, which names the first damaged file and block (every other difference is a
    message of level "warning"), FormatError if there is no usable lorafold.json, UsageError if
    the base is not to be found or is another one, MachineError.
    """
    library, callbacks, cancel = lib.library(), Callbacks(), ctypes.c_int(0)
    options, report, error = lib.VerifyOptionsStruct(), lib.VerifyReportStruct(), lib.Error()
    library.lorafold_verify_options_init(ctypes.byref(options))
    options.memory_bytes = parse_size(memory, "memory")
    options.threads = threads
    options.deep = deep
    options.base = None if base is None else encode(base, "base")
    options.cancel = ctypes.pointer(cancel)
    callbacks.put_into(options)

    def work() -> VerifyReport:
        lib.check(library.lorafold_verify(encode(out, "directory"), options, report, error), error)
        return VerifyReport(
            report.file_count, report.bytes, report.seconds, report.bytes_shared, report.bytes_unread, report.output_count
        )

    def stop() -> None:
        cancel.value = 1

    return run(work, stop, callbacks, progress, message)


def inspect(path: Path, *, all_tensors: bool = False) -> dict[str, Any]:
    """What a path is: a base, an adapter, one .safetensors file, or an output of lorafold.

    Returns the object that `lorafold inspect --json` prints: "type" ("base", "adapter", "output"),
    and what there is to say of it; sizes in bytes.  `all_tensors` adds "all", a list of objects with
    "name", "dtype", "shape", "bytes" and "file".

    Raises UsageError if there is nothing, FormatError if it is damaged or none of these.
    """
    library, text, error = lib.library(), ctypes.c_void_p(), lib.Error()
    status = library.lorafold_inspect(encode(path, "path"), lib.JSON, all_tensors, ctypes.byref(text), error)
    lib.check(status, error)
    found, *tensors = [json.loads(line) for line in lib.take_text(text.value).split("\n") if line]
    about: dict[str, Any] = found | ({"all": tensors} if all_tensors else {})
    return about

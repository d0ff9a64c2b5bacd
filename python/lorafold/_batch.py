"""merge_many(): several outputs from one pass over the base."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union, cast

from lorafold import _library as lib
from lorafold._errors import BatchError, UsageError
from lorafold._options import AdapterLike, MergeOptions, Path, encode, make_options
from lorafold._progress import MessageFunction, ShowProgress
from lorafold._records import BatchReport
from lorafold._work import Callbacks, run

if TYPE_CHECKING:
    from typing_extensions import Unpack

Adapters = Union[AdapterLike, Sequence[AdapterLike]]
Output = Union[Adapters, Mapping[str, Any]]

SKIP_EXISTING = 1
CANCELLED = 6
# What an output may have for itself; all else is the same for all.
OWN = ("save_method", "quant_type", "single_quant", "skip", "dtype", "tied", "lora_b_layout", "max_shard_size", "tokenizer",
       "allow_unused", "allow_nonfinite", "safe_serialization", "variant")  # fmt: skip
NOT_HERE = ("push_to_hub", "no_local", "trace")


class Batch:
    """One struct lorafold_batch, opened, run and closed by the thread that works."""

    def __init__(self, common: Any, outputs: list[tuple[bytes, Any]], flags: int) -> None:
        self.common, self.outputs, self.flags = common, outputs, flags  # the library borrows what they point to
        self.callbacks = Callbacks()
        self.callbacks.put_into(common)
        self.handle = ctypes.c_void_p()
        self.cancelled = ctypes.c_int(0)
        self.lock = threading.Lock()  # cancel() may not meet close()
        for options in (common, *(one for _, one in outputs)):
            options.cancel = ctypes.pointer(self.cancelled)

    def cancel(self) -> None:
        with self.lock:
            self.cancelled.value = 1
            if self.handle:
                lib.library().lorafold_batch_cancel(self.handle)

    def open(self) -> None:
        library, handle, error = lib.library(), ctypes.c_void_p(), lib.Error()
        lib.check(library.lorafold_batch_create(ctypes.byref(handle), ctypes.byref(self.common), self.flags, error), error)
        with self.lock:
            self.handle = handle
            if self.cancelled.value:
                library.lorafold_batch_cancel(handle)
        for name, options in self.outputs:
            lib.check(library.lorafold_batch_add(handle, name, ctypes.byref(options), error), error)
        lib.check(library.lorafold_batch_open(handle, error), error)

    def run(self) -> BatchReport:
        library, error = lib.library(), lib.Error()
        status = library.lorafold_batch_run(self.handle, error)
        if status == CANCELLED:
            lib.check(status, error)
        text, raw = (lib.take_text(library.lorafold_batch_summary(self.handle, form)) for form in (lib.TEXT, lib.JSON))
        report = BatchReport.read(json.loads(raw), text)
        if status:
            raise BatchError(lib.decode(error.text), report)
        return report

    def close(self) -> None:
        with self.lock:
            handle, self.handle = self.handle, ctypes.c_void_p()
        lib.library().lorafold_batch_close(handle)

    def do(self) -> BatchReport:
        try:
            self.open()
            return self.run()
        finally:
            self.close()


def split(name: str, output: Output) -> tuple[Adapters, MergeOptions]:
    """Adapters and options of an output."""
    if not isinstance(output, Mapping):
        return output, {}
    own = dict(output)
    if "adapters" not in own:
        raise UsageError(f"output {name!r} has no 'adapters'")
    adapters = own.pop("adapters")
    for option in own:
        if option not in OWN:
            raise UsageError(f"output {name!r}: {option!r} is no option of one output; these are: {', '.join(OWN)}")
    return adapters, cast(MergeOptions, own)


def merge_many(
    base: Path | None,
    outputs: Mapping[str, Output],
    out: Path,
    *,
    skip_existing: bool = False,
    progress: ShowProgress = None,
    message: MessageFunction | None = None,
    **options: Unpack[MergeOptions],
) -> BatchReport:
    """Make several models in one pass over the base, each a directory of its own below `out`.

    base: as for merge(); None: the base that the adapters name, the same for all.
    outputs: name of the directory -> an adapter, (adapter, weight), a sequence of these, or a mapping
        with "adapters" and the options in which this output differs: save_method, dtype, tokenizer,
        max_shard_size and others that say what is written.
    skip_existing: outputs that are there are left as they are, as after an interruption.
    options: of all outputs, see MergeOptions; there is no push, which `lorafold push` or
        merge(push_to_hub=...) does for each.
    progress, message: as for merge(); Progress counts outputs as well.

    Each output is published when it is complete, and has the bytes that merge() would give it;
    `memory` bounds all together.  One that cannot be made is left out with a warning (`strict`: all
    are refused), one that fails does not stop the others.

    Raises BatchError, with the report, if not all outputs are complete in the end; the errors of
    merge() where nothing could be begun; KeyboardInterrupt after Ctrl-C: what is published stays.
    """
    for name in NOT_HERE:
        if options.get(name):
            raise UsageError(f"{name} is for one output: push each directory, or call merge() for each")
    if not isinstance(outputs, Mapping):
        raise TypeError(f"outputs is a mapping of names to adapters, not {type(outputs).__name__}")
    added = []
    for name, output in outputs.items():
        adapters, own = split(name, output)
        added.append((encode(name, "name"), make_options(base, adapters, out, cast(MergeOptions, {**options, **own}))))
    batch = Batch(make_options(base, [], out, options), added, SKIP_EXISTING if skip_existing else 0)
    return run(batch.do, batch.cancel, batch.callbacks, progress, message)

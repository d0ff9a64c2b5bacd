"""merge() and plan()."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorafold import _library as lib
from lorafold._options import AdapterLike, MergeOptions, Path, make_options
from lorafold._progress import MessageFunction, ShowProgress
from lorafold._records import Plan, Report
from lorafold._work import Callbacks, run

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Merge:
    """One struct lorafold_merge, opened, run and closed by the thread that works."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.callbacks = Callbacks()
        self.callbacks.put_into(options)
        self.handle = ctypes.c_void_p()
        self.cancelled = ctypes.c_int(0)
        options.cancel = ctypes.pointer(self.cancelled)
        self.lock = threading.Lock()  # cancel() may not meet close()

    def cancel(self) -> None:
        with self.lock:
            self.cancelled.value = 1
            if self.handle:
                lib.library().lorafold_merge_cancel(self.handle)

    def open(self) -> Plan:
        handle, error = ctypes.c_void_p(), lib.Error()
        library = lib.library()
        lib.check(library.lorafold_merge_open(ctypes.byref(handle), ctypes.byref(self.options), error), error)
        with self.lock:
            self.handle = handle
            if self.cancelled.value:
                library.lorafold_merge_cancel(handle)
        text, raw = (lib.take_text(library.lorafold_merge_describe(handle, form)) for form in (lib.TEXT, lib.JSON))
        return Plan.read(json.loads(raw), text)

    def run(self, plan: Plan) -> Report:
        error, report = lib.Error(), lib.ReportStruct()
        library = lib.library()
        lib.check(library.lorafold_merge_run(self.handle, error), error)
        library.lorafold_merge_report(self.handle, report)
        text, raw = (lib.take_text(library.lorafold_report_describe(report, form)) for form in (lib.TEXT, lib.JSON))
        return Report.read(json.loads(raw) | {"base": plan.base, "revision": plan.revision}, text)

    def close(self) -> None:
        with self.lock:
            handle, self.handle = self.handle, ctypes.c_void_p()
        lib.library().lorafold_merge_close(handle)

    def do_plan(self) -> Plan:
        try:
            return self.open()
        finally:
            self.close()

    def do_merge(self) -> Report:
        try:
            return self.run(self.open())
        finally:
            self.close()


def merge(
    base: Path | None,
    adapters: AdapterLike | Sequence[AdapterLike],
    out: Path,
    *,
    progress: ShowProgress = None,
    message: MessageFunction | None = None,
    **options: Unpack[MergeOptions],
) -> Report:
    """Fold adapters into a base model and write a complete model directory.

    base: directory, .safetensors file, or org/name[@revision], which is fetched into the Hugging
        Face cache if it is not there; None: the base that the first adapter names.
    adapters: an adapter (a directory or org/name), a tuple (adapter, weight), or a sequence of
        these; the deltas are summed in the order given, each times its weight.
    out: directory to make; on any failure it does not exist, or is as it was.
    progress: None, a bar of tqdm on a terminal and in a notebook; True or False, always or never;
        a function, called with a Progress at most ten times a second and once at the end.
    message: called with "warning", "notice" or "detail" and one sentence; by default they go to
        the logger "lorafold".
    options: see MergeOptions.

    Callbacks come on the calling thread; what they raise cancels the merge and is raised here.
    Several threads may merge at once.  Memory beside Python's own is bounded by `memory`.

    Raises UsageError, FormatError, MismatchError (found before anything is written, but for results
    that are not finite), MachineError; KeyboardInterrupt after Ctrl-C; TypeError for an option that
    does not exist.
    """
    work = Merge(make_options(base, adapters, out, options))
    return run(work.do_merge, work.cancel, work.callbacks, progress, message)


def plan(
    base: Path | None,
    adapters: AdapterLike | Sequence[AdapterLike],
    out: Path | None = None,
    *,
    message: MessageFunction | None = None,
    **options: Unpack[MergeOptions],
) -> Plan:
    """What merge() would do, with all its checks; reads headers and configurations, writes nothing.

    Parameters and errors as for merge(); without `out` no place is checked.  An adapter that is not
    in the Hugging Face cache is fetched into it, a base is not.
    """
    work = Merge(make_options(base, adapters, out, options))
    work.options.plan_only = True
    return run(work.do_plan, work.cancel, work.callbacks, False, message)

"""fetch(): what a merge needs of a repository, in the Hugging Face cache."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import os
from pathlib import Path as Directory

from lorafold import _library as lib
from lorafold._options import Path, encode, set_hub
from lorafold._progress import MessageFunction, ShowProgress
from lorafold._work import Callbacks, run


def fetch(
    name: str,
    *,
    token: str | bool | None = None,
    token_file: Path | None = None,
    offline: bool = False,
    progress: ShowProgress = None,
    message: MessageFunction | None = None,
) -> Directory:
    """The directory of org/name[@revision] in the Hugging Face cache, fetched if it is not there whole.

    Only what a merge needs is fetched: safetensors files, configuration, tokenizer, code.
    token: None, as the Hugging Face tools find it; False: none.  token_file: a file that holds it.
    offline: nothing is asked of the Hub.
    progress, message: as for merge().

    Raises MachineError where the Hub refuses or is away, UsageError if it may not be asked.
    """
    library, callbacks, cancel = lib.library(), Callbacks(), ctypes.c_int(0)
    options, directory, error = lib.FetchOptionsStruct(), ctypes.c_void_p(), lib.Error()
    library.lorafold_fetch_options_init(ctypes.byref(options))
    set_hub(options.hub, token, token_file, offline)
    options.cancel = ctypes.pointer(cancel)
    callbacks.put_into(options)

    def work() -> Directory:
        lib.check(library.lorafold_fetch(encode(name, "name"), options, ctypes.byref(directory), error), error)
        return Directory(os.fsdecode(lib.take_text(directory.value)))

    def stop() -> None:
        cancel.value = 1

    return run(work, stop, callbacks, progress, message)

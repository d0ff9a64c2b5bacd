"""What is shown while the library works: a bar of tqdm where somebody is looking, and log records."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Union

Level = Literal["warning", "notice", "detail"]
LOGGER = "lorafold"


@dataclass(frozen=True)
class Progress:
    """How far the work is: bytes of the output (verify: of the files read) and seconds since it began.

    limit: "read", "compute" or "write", what holds the work up at the moment; "prepare", "download" or
        "upload": the bytes are those of what is made first, or of what comes from the Hub or goes there.
    file: the file of the newest block.
    outputs_done, outputs_total: of merge_many(); 0 of 0 elsewhere.
    """

    bytes_done: int
    bytes_total: int
    seconds: float
    limit: str
    file: str
    outputs_done: int = 0
    outputs_total: int = 0


ProgressFunction = Callable[[Progress], object]
MessageFunction = Callable[[Level, str], object]
ShowProgress = Union[bool, ProgressFunction, None]


class Bar:
    """A bar of tqdm, made with the first progress."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make
        self.bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if self.bar is None:
            self.bar = self.make(total=progress.bytes_total, unit="B", unit_scale=True, desc="lorafold")
        if self.bar.total != progress.bytes_total:  # other bytes are counted from now on
            self.bar.reset(total=progress.bytes_total)
        self.bar.set_postfix_str(progress.limit, refresh=False)
        self.bar.update(progress.bytes_done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell else None
    return running is not None and "IPKernelApp" in getattr(running, "config", {})


def make_bar() -> Bar | None:
    """None without tqdm."""
    try:
        if in_notebook():
            from tqdm.auto import tqdm
        else:
            from tqdm import tqdm
    except ImportError:
        return None
    return Bar(tqdm)


def choose(progress: ShowProgress) -> Bar | ProgressFunction | None:
    """None: a bar on a terminal and in a notebook; True: always; False: never; else the function itself."""
    if progress is None:
        progress = in_notebook() or bool(sys.stderr and sys.stderr.isatty())
    if progress is True:
        return make_bar()
    return progress or None


def log(level: Level, sentence: str) -> None:
    """Messages become records of the logger "lorafold": warning, info, debug."""
    import logging

    levels = {"warning": logging.WARNING, "notice": logging.INFO, "detail": logging.DEBUG}
    logging.getLogger(LOGGER).log(levels[level], "%s", sentence)

"""Run the library in a thread of its own, so that Ctrl-C reaches the one that waits."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from types import FrameType
from typing import Any, Generic, TypeVar, cast

from lorafold import _library as lib
from lorafold import _progress
from lorafold._progress import Bar, Level, MessageFunction, Progress, ShowProgress

Result = TypeVar("Result")
Message = tuple[Level, str]


@dataclass
class Outcome(Generic[Result]):
    """The last thing that the thread says."""

    value: Result | None = None
    error: BaseException | None = None


class Callbacks:
    """C functions that put what they are told into a queue, from whichever thread."""

    def __init__(self) -> None:
        self.events: SimpleQueue[Any] = SimpleQueue()
        self.message = lib.MESSAGE_FUNCTION(self._message)
        self.progress = lib.PROGRESS_FUNCTION(self._progress)

    def _message(self, _context: object, level: int, sentence: bytes) -> None:
        self.events.put((lib.LEVELS[level], lib.decode(sentence)))

    def _progress(self, _context: object, pointer: Any) -> None:
        now = pointer.contents
        limit, file = lib.LIMITS[now.limit], lib.decode(now.file)
        outputs = now.outputs_done, now.outputs_total
        self.events.put(Progress(now.bytes_done, now.bytes_total, now.seconds, limit, file, *outputs))

    def put_into(self, options: ctypes.Structure) -> None:
        options.message, options.progress = self.message, self.progress


def run(
    work: Callable[[], Result],
    cancel: Callable[[], None],
    callbacks: Callbacks,
    progress: ShowProgress = False,
    message: MessageFunction | None = None,
) -> Result:
    """The result of `work`, which runs in another thread; messages and progress come on this one.

    Whatever is raised here meanwhile, by Ctrl-C or by a callback, cancels the work, and is raised
    again once that has ended.
    """
    events = callbacks.events
    shown = _progress.choose(progress)
    say = message or _progress.log

    def body() -> None:
        try:
            events.put(Outcome(work()))
        except BaseException as error:
            events.put(Outcome(error=error))

    thread = threading.Thread(target=body, name="lorafold")
    try:
        thread.start()
        outcome = _listen(events, shown, say)
        thread.join()
    except BaseException:
        unbroken(lambda: end(thread, cancel))
        raise
    finally:
        if isinstance(shown, Bar):
            shown.close()
    if outcome.error is not None:
        raise outcome.error
    return cast(Result, outcome.value)


def end(thread: threading.Thread, cancel: Callable[[], None]) -> None:
    cancel()
    if thread.ident is not None:
        thread.join()


def unbroken(work: Callable[[], Result]) -> Result:
    """The result of `work`, which runs to its end: what Ctrl-C raises comes after it.

    Whoever presses it again is in a hurry, but half of a clean-up is none.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        return work()  # signals are handled on the main thread alone
    came: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        return work()
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[0])


def _listen(events: SimpleQueue[Any], shown: Any, say: MessageFunction) -> Outcome[Any]:
    while True:
        event = events.get()
        if isinstance(event, Outcome):
            return event
        if isinstance(event, Progress):
            if shown is not None:
                shown(event)
        else:
            say(*event)

"""One exception class per exit code of the program."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from lorafold._records import BatchReport


class LorafoldError(Exception):
    """A merge or another call did not succeed; `str()` is one sentence.

    exit_code: the status with which the program `lorafold` ends for the same reason.
    """

    exit_code: ClassVar[int] = 1


class MachineError(LorafoldError):
    """The machine or the network failed: I/O, no space, no memory, the Hub.  A retry may help."""


class BatchError(MachineError):
    """Not all outputs of merge_many() are complete: report.outputs says which, and why not."""

    def __init__(self, sentence: str, report: BatchReport) -> None:
        super().__init__(sentence)
        self.report = report


class UsageError(LorafoldError, ValueError):
    """The call cannot be done as given: options, paths, a budget that is too small."""

    exit_code = 2


class FormatError(LorafoldError):
    """An input is damaged or unsupported, or a result is not finite."""

    exit_code = 3


class MismatchError(LorafoldError):
    """Base and adapter do not fit each other."""

    exit_code = 4


class DifferenceError(LorafoldError):
    """Verification found that an output is not what was written."""

    exit_code = 5


class Cancelled(LorafoldError):
    """Somebody asked the work to stop; a progress callback may raise it to that end.

    After Ctrl-C the calls raise KeyboardInterrupt instead.
    """

    exit_code = 130


# By enum lorafold_status.
CLASSES: dict[int, type[LorafoldError]] = {
    1: MachineError,
    2: UsageError,
    3: FormatError,
    4: MismatchError,
    5: DifferenceError,
    6: Cancelled,
}


def error_of(status: int, sentence: str) -> LorafoldError:
    """The exception for a status of the library."""
    return CLASSES.get(status, LorafoldError)(sentence)

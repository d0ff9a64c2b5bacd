"""What calls return: dataclasses that can also be read like the JSON objects they come from."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Self = TypeVar("Self", bound="Record")


@dataclass(frozen=True, eq=False)
class Record(Mapping[str, Any]):
    """Attributes for the fields that are described, `record["name"]` for all that the library says."""

    raw: dict[str, Any] = field(repr=False)
    text: str = field(repr=False)

    @classmethod
    def read(cls: type[Self], raw: dict[str, Any], text: str) -> Self:
        names = [one.name for one in dataclasses.fields(cls) if one.name not in ("raw", "text")]
        return cls(raw=raw, text=text, **{name: raw[name] for name in names})

    def __getitem__(self, name: str) -> Any:
        return self.raw[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Plan(Record):
    """What a merge would do, from headers and configurations alone.

    str(plan) is the text that `lorafold plan` prints.  Sizes are in bytes.

    base, revision: name of the base, and its commit where it is in the Hugging Face cache.
    adapters: one object each, with "name", "modules", "unused_tensors", "weight".
    files: one object per shard of the output, with "name", "bytes", "tensors".
    tensors_*: what becomes of the tensors of the output: folded (an adapter is added), replaced
    by one of an adapter, patched (some rows are), converted to another dtype, copied.
    bytes_cloned: of bytes_out, those that share the storage of the base.
    memory_needed_bytes, memory_least_bytes: of the budget; the least budget that would work.
    device, device_reason: what computes, and why where that was not asked for.
    """

    base: str
    revision: str | None
    output: str | None
    adapters: list[dict[str, Any]]
    files: list[dict[str, Any]]
    tensors_folded: int
    tensors_replaced: int
    tensors_patched: int
    tensors_converted: int
    tensors_copied: int
    bytes_in: int
    bytes_out: int
    bytes_cloned: int
    memory_budget_bytes: int
    memory_needed_bytes: int
    memory_least_bytes: int
    workers: int
    kernels: str
    device: str
    device_reason: str
    device_budget_bytes: int
    device_needed_bytes: int


@dataclass(frozen=True, eq=False)
class Report(Record):
    """What a merge did.

    str(report) is the closing text of `lorafold merge`.  Sizes are in bytes, times in seconds.

    base, revision: the base that was read, as in Plan.
    shards: files of weights written to the directory `output`.
    bytes_written, bytes_cloned: of the files of weights; the latter share the storage of the base.
    share_*: what limited the work; the three add up to 1.
    memory_peak_bytes: of the whole process, so with all that Python holds.
    device, device_bytes: what computed, and what it gave of its own memory.
    """

    output: str
    base: str
    revision: str | None
    bytes_read: int
    bytes_written: int
    bytes_cloned: int
    tensors_folded: int
    tensors_replaced: int
    tensors_patched: int
    tensors_converted: int
    tensors_copied: int
    shards: int
    seconds: float
    seconds_planning: float
    share_read: float
    share_compute: float
    share_write: float
    memory_peak_bytes: int
    kernels: str
    workers: int
    device: str
    device_bytes: int

    def moved(self, before: str, after: str) -> Report:
        """The same, of an output that was moved."""
        raw, text = self.raw | {"output": after}, self.text.replace(before, after)
        return dataclasses.replace(self, raw=raw, text=text, output=after)


@dataclass(frozen=True, eq=False)
class BatchReport(Record):
    """What merge_many() did.

    str(report) is the closing text of `lorafold merge --each`.  Sizes are in bytes, times in seconds.

    output: the directory of all.
    outputs: one object each, with "name", "state" ("complete", "exists", "left out", "failed"), and
    "code" and "text" of what went wrong; what is made also with "save_method", "tensors_folded",
    "bytes_out", "bytes_cloned" and "adapters".
    outputs_complete, outputs_existing, outputs_failed: how many; the last are also those left out.
    bytes_read: of the base, once for all of them.
    bytes_alike: the same in several outputs, and computed for one of them.
    """

    output: str
    outputs: list[dict[str, Any]]
    outputs_complete: int
    outputs_existing: int
    outputs_failed: int
    bytes_read: int
    bytes_written: int
    bytes_cloned: int
    bytes_alike: int
    seconds: float
    seconds_planning: float
    share_read: float
    share_compute: float
    share_write: float
    memory_peak_bytes: int
    kernels: str
    workers: int


@dataclass(frozen=True)
class VerifyReport:
    """What was compared: number of files, their bytes, and how long it took in seconds.

    bytes_shared: of these bytes, those that were compared with the base (deep).
    bytes_unread: bytes beside them that were cloned from the base and not read (without deep).
    output_count: models in the directory; several after merge_many().
    """

    file_count: int
    bytes: int
    seconds: float
    bytes_shared: int = 0
    bytes_unread: int = 0
    output_count: int = 1

"""The directory that a model is saved into: everything is made inside it, then moved into place.

A directory is never seen with a configuration and a mixture of old and new weights: the old
configuration goes before the first new shard comes, the new one comes after the last.

The weights that a save replaces are those that a loader could take for its own: of the same variant,
in safetensors and in files of torch, because loaders prefer the one to the other.
"""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from lorafold._errors import MachineError, UsageError
from lorafold._work import unbroken

WORK = ".lorafold.save"
LOCK = "lock"
MANIFEST = "lorafold.json"
CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
FORMATS = (("model", "safetensors"), ("pytorch_model", "bin"))
# Weights of a model, of any variant, or their index.
WEIGHTS = re.compile(r"(model|pytorch_model)(\.[\w-]+)?(-\d{5}-of-\d{5})?\.(safetensors|bin)(\.index(\.[\w-]+)?\.json)?")


@contextmanager
def temporary_directory(where: str | os.PathLike[str]) -> Iterator[Path]:
    """Below `where`, which is made if it is missing; gone at the end."""
    Path(where).mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="lorafold-", dir=where))
    try:
        yield made
    finally:
        unbroken(lambda: shutil.rmtree(made, ignore_errors=True))


def singles_and_indexes(variant: str | None) -> tuple[list[str], list[str]]:
    """The names that transformers looks for."""
    dot = f".{variant}" if variant else ""
    return ([f"{stem}{dot}.{ending}" for stem, ending in FORMATS],
            [f"{stem}.{ending}.index{dot}.json" for stem, ending in FORMATS])


class Place:
    """Locks the directory and makes WORK in it; removes WORK at the end.

    UsageError: it is a file, holds an adapter (loaders would put it on top of the merged model), or
    another process is saving into it.
    """

    def __init__(self, directory: str | os.PathLike[str], *, is_model: bool, variant: str | None = None) -> None:
        self.directory = Path(directory)
        self.work = self.directory / WORK
        self.is_model = is_model  # and not an adapter
        self.variant = variant
        self.is_made = not self.directory.exists()
        self.is_kept = False
        self.lock = -1

    def __enter__(self) -> Place:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if self.is_model and (self.directory / ADAPTER_CONFIG).exists():
                raise UsageError(f"'{self.directory}' holds an adapter (adapter_config.json), which loaders would put on "
                                 "top of the merged model; save into another directory")
            if not self.is_model and self.holds_weights():
                raise UsageError(f"'{self.directory}' holds a whole model, which loaders would not find beside an adapter; "
                                 "save into another directory")
            self.lock = take_lock(self.work)
            try:
                self.remove_stale()
            except BaseException:  # __exit__ is not called then
                os.close(self.lock)
                raise
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"'{self.directory}' is a file, not a directory") from None
        except OSError as error:
            raise MachineError(f"'{self.directory}': {error.strerror}") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        unbroken(lambda: self.leave(failed=kind is not None))

    def remove_stale(self) -> None:
        for stale in self.work.iterdir():
            if stale.name != LOCK:
                shutil.rmtree(stale) if stale.is_dir() and not stale.is_symlink() else stale.unlink()

    def leave(self, *, failed: bool) -> None:
        if not self.is_kept:
            shutil.rmtree(self.work, ignore_errors=True)
        os.close(self.lock)
        if self.is_made and failed and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def make(self, name: str) -> Path:
        """A directory below WORK."""
        path = self.work / name
        path.mkdir(parents=True)
        return path

    def holds_weights(self) -> bool:
        """Of a whole model."""
        return any(WEIGHTS.fullmatch(name) for name in os.listdir(self.directory))

    def publish(self, built: Path) -> list[str]:
        """Replace the model in the directory by the one in `built`; other files stay.  Names of what came.

        MachineError names where the finished model is when a step fails.
        """
        new = sorted(path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file())
        self.is_kept = True
        try:
            self.remove_old(set(new))
            for name in sorted(new, key=when):
                (self.directory / name).parent.mkdir(exist_ok=True)
                os.replace(built / name, self.directory / name)
            sync(self.directory)
        except OSError as error:
            raise MachineError(f"cannot move the new model into '{self.directory}' ({error}); it is complete but for what "
                               f"was moved, in '{built}'") from error
        self.is_kept = False
        return new

    def remove_old(self, new: set[str]) -> None:
        """What would make a model of a mixture, then the old weights, then what named them."""
        weights, indexes = stale_weights(self.directory, self.variant) if self.is_model else (set(ADAPTER_WEIGHTS), [])
        for name in (MANIFEST, CONFIG if self.is_model else ADAPTER_CONFIG):
            (self.directory / name).unlink(missing_ok=True)
        sync(self.directory)
        for name in (*sorted(weights), *indexes):
            if name not in new:
                (self.directory / name).unlink(missing_ok=True)


def when(name: str) -> int:
    """Configuration and manifest last, as they make the rest a model.

    The index first: should this process die now, the next save reads there what to remove.
    """
    if WEIGHTS.fullmatch(name) and name.endswith(".json"):
        return -1
    return {CONFIG: 1, ADAPTER_CONFIG: 1, MANIFEST: 2}.get(name, 0)


def stale_weights(directory: Path, variant: str | None) -> tuple[set[str], list[str]]:
    """Names of the weights of the model that is there, what its indexes name and single files, and of the indexes."""
    singles, indexes = singles_and_indexes(variant)
    names = set(singles)
    for index in indexes:
        try:
            names |= {name for name in json.loads((directory / index).read_bytes())["weight_map"].values() if is_plain(name)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
    return names, indexes


def is_plain(name: object) -> bool:
    """The name of a file in the directory itself."""
    return isinstance(name, str) and name == os.path.basename(name) and name not in ("", ".", "..")


def sync(directory: Path) -> None:
    """What was renamed and removed survives a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_lock(work: Path) -> int:
    """A lock on WORK that dies with this process."""
    while True:
        work.mkdir(exist_ok=True)
        try:
            lock = os.open(work / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # its owner has just removed it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UsageError(f"another process is saving into '{work.parent}'") from None
        if is_same(lock, work / LOCK):
            return lock
        os.close(lock)


def is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False

"""Push a model: create the repository, store files as they are completed, commit once."""

# SPDX-License-Identifier: Apache-2.0

import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from huggingface_hub import CommitOperationAdd

from lorafold_hub.connection import Connection
from lorafold_hub.failures import Failure

REPORT_SECONDS = 0.2

# What a loader may take for the weights of a model or of an adapter, in one format or the other.
WEIGHTS = re.compile(r"(?:pytorch_)?model(?:\.([\w-]+?))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)")
INDEX = re.compile(r"(?:pytorch_)?model\.(?:safetensors|bin)\.index(?:\.([\w-]+))?\.json")
ADAPTER = re.compile(r"adapter_model\.(?:safetensors|bin)")
ADAPTER_CONFIG = "adapter_config.json"
NAMED_MAX = 4  # files in one sentence

PULL_REQUEST = re.compile(r"refs/pr/\d+")


@dataclass
class Target:
    """Where a push goes."""

    repo: str
    url: str
    revision: str | None  # None: main
    create_pr: bool


class Addition(CommitOperationAdd):
    """Says how far its upload is, where that goes through a file of Python's (not with Xet)."""

    report: Callable[[int], None]

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        with super().as_file() as file:
            if with_tqdm:  # so the library opens what it uploads
                self.watch(file)
            yield file

    def watch(self, file: Any) -> None:
        read, told = file.read, 0.0

        def read_and_report(size: int | None = -1) -> bytes:
            nonlocal told
            data: bytes = read(size)
            now = time.monotonic()
            if now - told >= REPORT_SECONDS:
                told = now
                self.report(file.tell())
            return data

        file.read = read_and_report


@dataclass
class Push:
    """The files of one push, as they were stored: path in the repository -> operation of the commit."""

    connection: Connection
    target: Target
    additions: dict[str, CommitOperationAdd] = field(default_factory=dict)
    _claimed: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def store(self, path: str, file: str, delete: bool, report: Callable[[int], None]) -> dict[str, Any]:
        """Send a file if the Hub lacks it.  Small ones go with the commit: they stay, and are read then."""
        with self._lock:
            if path in self._claimed:
                raise Failure("request", f"'{path}' is stored twice")
            self._claimed.add(path)
        try:
            with open(file, "rb"):  # a sentence of the system if that fails
                pass
            addition = Addition(path_in_repo=path, path_or_fileobj=file)
        except OSError as error:  # the program may call the file by a name that says nothing
            raise Failure("local", f"'{path}' cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise Failure("local", f"'{path}' cannot be stored: {error}") from None
        addition.report = report
        size = addition.upload_info.size
        self.connection.call(
            self.connection.api.preupload_lfs_files,
            self.target.repo,
            [addition],
            revision=self.target.revision,
            create_pr=self.target.create_pr,
            free_memory=True,
        )
        stored = is_stored(addition)
        if stored and delete:
            os.unlink(file)
        with self._lock:
            self.additions[path] = addition
        return {"bytes": size, "stored": stored, "deleted": stored and delete}


def is_stored(addition: CommitOperationAdd) -> bool:
    """The library lets go of what it has stored as a large object (free_memory)."""
    return addition.path_or_fileobj == b""


def model_of(path: str) -> tuple[str, str] | None:
    """Which of the models of a repository these weights are of: kind and variant ("": none); None: no weights."""
    if ADAPTER.fullmatch(path):
        return ("adapter", "")
    found = WEIGHTS.fullmatch(path) or INDEX.fullmatch(path)
    return ("model", found[1] or "") if found else None


def check_not_mixed(repo: str, present: Collection[str], is_adapter: bool) -> None:
    """Loaders put an adapter on top of the model beside it, or do not see the model at all."""
    if is_adapter:
        odd = sorted(path for path in present if (model_of(path) or ("",))[0] == "model")
        what = "a whole model, which loaders would not find beside an adapter"
    else:
        odd = sorted(path for path in present if path == ADAPTER_CONFIG or ADAPTER.fullmatch(path))
        what = "an adapter, which loaders would put on top of the merged model"
    if odd:
        raise Failure("mixed", f"'{repo}' holds {what}: push to another repository, or remove it there first with: "
                               f"hf repos delete-files {repo} {' '.join(odd[:NAMED_MAX])}{' ...' if odd[NAMED_MAX:] else ''}")


def create(connection: Connection, repo: str, revision: str | None, create_pr: bool, private: bool,
           is_adapter: bool | None = None) -> Push:
    """is_adapter: what is going to be pushed; None: that is not known, and nothing is compared."""
    api = connection.api
    if create_pr and revision not in (None, "main"):
        raise Failure("option", f"a pull request goes to main, not to '{revision}': give either a revision or "
                                "the wish for a pull request")
    # An existing repository stays as visible as it is.
    created = connection.call(api.create_repo, repo, private=private or None, exist_ok=True)
    target = Target(created.repo_id, str(created), None if revision == "main" else revision, create_pr)
    if not create_pr:
        # Before hours of work and not after them.
        connection.call(api.auth_check, target.repo, write=True)
    if target.revision and not PULL_REQUEST.fullmatch(target.revision):
        connection.call(api.create_branch, target.repo, branch=target.revision, exist_ok=True)
    head = connection.call(api.repo_info, target.repo, revision=target.revision)
    if is_adapter is not None:
        check_not_mixed(target.repo, {file.rfilename for file in head.siblings or []}, is_adapter)
    return Push(connection, target)

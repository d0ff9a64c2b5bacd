"""Push a model: create the repository, store files as they are completed, commit once."""

# SPDX-License-Identifier: Apache-2.0

import os
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import CommitOperationAdd

from lorafold_hub.connection import Connection
from lorafold_hub.failures import Failure

PULL_REQUEST = re.compile(r"refs/pr/\d+")


@dataclass
class Target:
    """Where a push goes."""

    repo: str
    url: str
    revision: str | None  # None: main
    create_pr: bool


@dataclass
class Push:
    """The files of one push, as they were stored: path in the repository -> operation of the commit."""

    connection: Connection
    target: Target
    additions: dict[str, CommitOperationAdd] = field(default_factory=dict)
    _claimed: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def store(self, path: str, file: str, delete: bool) -> dict[str, Any]:
        """Send a file if the Hub lacks it.  Small ones go with the commit: they stay, and are read then."""
        with self._lock:
            if path in self._claimed:
                raise Failure("request", f"'{path}' is stored twice")
            self._claimed.add(path)
        try:
            with open(file, "rb"):  # a sentence of the system if that fails
                pass
            addition = CommitOperationAdd(path_in_repo=path, path_or_fileobj=file)
        except ValueError as error:
            raise Failure("local", f"'{path}' ('{file}') cannot be stored: {error}") from None
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


def create(connection: Connection, repo: str, revision: str | None, create_pr: bool, private: bool) -> Push:
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
    connection.call(api.repo_info, target.repo, revision=target.revision)
    return Push(connection, target)

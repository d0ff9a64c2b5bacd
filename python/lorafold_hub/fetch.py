"""Fetch a repository's files into the cache of the Hugging Face tools."""

# SPDX-License-Identifier: Apache-2.0

import glob
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import tqdm

from lorafold_hub.connection import Connection
from lorafold_hub.failures import Failure
from lorafold_hub.files import choose

REPORT_SECONDS = 0.2

Report = Callable[[int, int], None]  # bytes fetched, bytes in all


def free_bytes(directory: str) -> int:
    """Of the file system that holds the directory, or will."""
    path = Path(directory).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def check_space(need: int) -> None:
    free = free_bytes(constants.HF_HUB_CACHE)
    if need > free:
        raise Failure("no_space", f"no space left for '{constants.HF_HUB_CACHE}': {need / 1e9:.2f} GB are to be "
                                  f"fetched, and {free / 1e9:.2f} GB are free")


def progress_bars(total: int, report: Report) -> type[tqdm]:
    """A class of progress bars that show nothing and report the bytes of the one that is farthest."""
    state = {"told": 0.0, "most": 0}

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._counts_bytes = options.get("unit") == "B"
            super().__init__(*arguments, **(options | {"disable": True}))

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0  # a bar that is disabled does not count
            now = time.monotonic()
            if self._counts_bytes and self.n > state["most"] and now - state["told"] >= REPORT_SECONDS:
                state.update(told=now, most=int(self.n))
                report(min(int(self.n), total), total)

    return Bar


def fetch(connection: Connection, repo: str, revision: str | None, report: Report, weights: bool) -> dict[str, Any]:
    """What a merge needs, or without `weights` all of that but these."""
    api = connection.api
    commit = connection.call(api.repo_info, repo, revision=revision).sha
    tree = connection.call(lambda: list(api.list_repo_tree(repo, revision=commit, recursive=True)))
    sizes = {file.path: file.size for file in tree if isinstance(file, RepoFile)}
    paths = choose(list(sizes), weights)
    if not paths and not weights:
        raise Failure("no_weights", f"'{repo}' holds no tokenizer")
    if not paths:
        raise Failure("no_weights", f"'{repo}' holds no safetensors weights and no adapter")
    absent = [path for path in paths if not isinstance(try_to_load_from_cache(repo, path, revision=commit), str)]
    need = sum(sizes[path] for path in absent)
    check_space(need)
    directory = connection.call(
        snapshot_download,
        repo,
        revision=revision,
        # By name and not by a pattern; the brackets that a name may hold are no pattern either.
        allow_patterns=[glob.escape(path) for path in paths],
        token=api.token,
        tqdm_class=progress_bars(need, report),
    )
    report(need, need)
    return {"directory": directory, "commit": os.path.basename(directory), "files": len(paths), "bytes": need}

"""The boundary to the Hub: a conversation with the helper lorafold-hub (docs/HUB.md)."""

# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from lorafold import _progress
from lorafold._errors import MachineError, UsageError, error_of
from lorafold._save_options import SaveOptions

MESSAGE = "Upload a model merged by lorafold"


def as_list(names: list[str] | str | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or [])


class Push:
    """One push: the repository is made when it is entered, one commit ends it.

    The token goes to the helper in its environment and is in no message.
    """

    def __init__(self, repo_id: str, options: SaveOptions) -> None:
        if repo_id.count("/") != 1:
            raise UsageError(f"'{repo_id}' is not the name of a repository: it is org/name (repo_id=)")
        if importlib.util.find_spec("lorafold_hub") is None:
            raise UsageError("pushing needs the package lorafold_hub, which is not in this installation")
        self.repo_id, self.options = repo_id, options
        self.asked = 0

    def __enter__(self) -> Push:
        words = [sys.executable, "-m", "lorafold_hub"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment(),
                                        start_new_session=True)  # Ctrl-C is for us to answer
        try:
            self.ask("hello", token_file=None)
            self.ask("create", repo=self.repo_id, revision=self.options.revision, create_pr=self.options.create_pr,
                     private=bool(self.options.private))
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """What is under way is given up."""
        assert self.process.stdin and self.process.stdout
        self.process.kill() if self.process.poll() is None else None
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        self.process.wait()

    def environment(self) -> dict[str, str]:
        token, env = self.options.token, dict(os.environ)
        if isinstance(token, str):
            env |= {"HF_TOKEN": token, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
        if token is False:
            env["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
        return env

    def ask(self, do: str, **members: object) -> dict[str, Any]:
        """The answer to one request; notices that come meanwhile are logged."""
        assert self.process.stdin and self.process.stdout
        self.asked += 1
        try:
            self.process.stdin.write(json.dumps({"id": self.asked, "do": do} | members).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words say why
        for line in self.process.stdout:
            answer: dict[str, Any] = json.loads(line)
            if "notice" in answer:
                _progress.log("notice", answer["notice"])
            elif "done" in answer:
                return dict(answer["done"])
            elif "error" in answer:
                raise error_of(answer["exit"], answer["sentence"])
        raise MachineError("the helper for the Hub ended without an answer")

    def send(self, directory: Path, files: list[str]) -> str:
        """Store the files and commit once; the address of the commit."""
        for name in files:
            self.ask("store", path=name, file=str(directory / name), delete=False)
        options = self.options
        done = self.ask("commit", message=options.commit_message or MESSAGE, description=options.commit_description or "",
                        tags=as_list(options.tags), datasets=as_list(options.datasets))
        return str(done["url"])

"""The program, the genuine helper and the test hub together, for test_hub_*.py.

Whatever the program and its helper say, and whatever any process is called with, is searched for tokens.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hub_help import ROOT, STRANGER, TIMEOUT_SECONDS, TOKEN, environment

from hub import TestHub

LORAFOLD = Path(os.environ.get("LORAFOLD", ROOT / "build" / "lorafold")).resolve()
SECRETS = (TOKEN, STRANGER)


def make_model(base: Path, adapter: Path) -> None:
    """A tiny base of two tensors and an adapter that names it."""
    subprocess.run([sys.executable, ROOT / "tests/cli/tiny_model.py", base, adapter], check=True)


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def command_lines() -> str:
    """Of all processes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text())
        except OSError:
            pass  # it has ended
    return "\n".join(lines)


@dataclass
class Run:
    status: int
    stdout: str
    stderr: str


@dataclass
class Program:
    """lorafold in a process that knows of the test hub alone."""

    hub: TestHub
    root: Path  # a scratch directory, where it runs
    more: dict[str, str] = field(default_factory=dict)  # environment

    def __post_init__(self) -> None:
        self.helper = self.root / "bin" / "lorafold-hub"
        self.helper.parent.mkdir(exist_ok=True)
        self.write_helper(f'exec "{sys.executable}" -m lorafold_hub')

    def write_helper(self, script: str) -> None:
        self.helper.write_text(f"#!/bin/sh\n{script}\n")
        self.helper.chmod(0o755)

    @property
    def home(self) -> Path:
        return self.root / "home"

    def snapshot(self, repo: str) -> Path:
        """Of its only commit in the cache."""
        (found,) = (self.home / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots").iterdir()
        return found

    def start(self, *words: object, token: str | None = TOKEN, **more: str) -> subprocess.Popen:
        env = environment(self.hub, self.home, token, LORAFOLD_HUB=str(self.helper), **self.more, **more)
        return subprocess.Popen([LORAFOLD, *map(str, words)], env=env, cwd=self.root, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process: subprocess.Popen) -> Run:
        stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
        assert not any(secret in stdout + stderr for secret in SECRETS)
        return Run(process.returncode, stdout, stderr)

    def run(self, *words: object, token: str | None = TOKEN, **more: str) -> Run:
        return self.finish(self.start(*words, token=token, **more))

    def ok(self, *words: object, **options: object) -> Run:
        done = self.run(*words, **options)
        assert done.status == 0, done
        return done

    def refused(self, status: int, *words: object, **options: object) -> str:
        """The one sentence."""
        done = self.run(*words, **options)
        assert done.status == status, done
        lines = [line for line in done.stderr.splitlines() if line.startswith("lorafold: ")]
        assert len(lines) == 1, done
        return lines[0].removeprefix("lorafold: ")


def children_of(pid: int) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            found.add(int(path.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Of other processes there is no event to wait for."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def interrupt(program: Program, process: subprocess.Popen, number: int = signal.SIGINT) -> Run:
    """Signal the program while its helper works; both end, and nothing of them is left."""
    helpers = children_of(process.pid)
    assert helpers
    process.send_signal(number)
    done = program.finish(process)
    eventually(lambda: not any(is_alive(pid) for pid in helpers), "the helper lives on")
    return done


class Watch(threading.Thread):
    """Looks through all command lines until the end of the context."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen = ""
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            self.seen += command_lines()
            time.sleep(0.02)

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()
        assert "lorafold_hub" in self.seen and not any(secret in self.seen for secret in SECRETS)

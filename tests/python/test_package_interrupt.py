"""Ctrl-C during save_pretrained_merged and push_to_hub_merged, in a process of its own, at different moments."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import package_help as help  # first: it says where the package is
import lorafold
import models
from conftest import TIMEOUT_SECONDS
from hub_help import environment, running_hub

from hub import TestHub

# Each moment says that it has come, and lasts until the signal is there (one that is not to be broken: for a while).
CHILD = """
import os, sys, time
import torch, peft
import package_help as help, lorafold, models
base, out, moment, call = sys.argv[1:]
told = []
def now(seconds=60):
    if not told:
        told.append(1)
        print("now", flush=True)
        time.sleep(seconds)
model = help.trained(base)
options = {"progress": False}
if moment == "adapter":
    save = model.save_pretrained
    model.save_pretrained = lambda *words, **more: (save(*words, **more), now())
elif moment == "tokenizer":
    class Tokenizer:
        def save_pretrained(self, directory):
            os.mkdir(directory)
            now()
    options["tokenizer"] = Tokenizer()
elif moment == "merge":
    options["progress"] = lambda progress: now()
elif moment == "publish":
    replace = os.replace
    def slow(*words):
        now(0.5)
        replace(*words)
    os.replace = slow
elif moment == "upload":
    os.environ["HF_HUB_OFFLINE"] = "0"  # which conftest.py has set
    print("now", flush=True)
getattr(lorafold, call)(model, out, **options)
print("finished")
"""


def interrupt(base: Path, out: object, moment: str, call: str = "save_pretrained_merged", wait: Callable = lambda: None,
              times: int = 3, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:  # fmt: skip
    """Run the child, press Ctrl-C when the moment has come, and see it end with KeyboardInterrupt."""
    words = [sys.executable, "-c", CHILD, str(base), str(out), moment, call]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=env or help.environment()) as child:
        assert child.stdout.readline() == "now\n", child.stderr.read()
        wait()
        for number in range(times):
            time.sleep(0.05 * number)
            child.send_signal(signal.SIGINT)
        said, errors = child.communicate(timeout=TIMEOUT_SECONDS)
    # A signal that comes while Python ends is told of as well.
    assert "\nKeyboardInterrupt\n" in errors and said == "", (said, errors)
    assert child.returncode == -signal.SIGINT


def state(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return help.make_base(tmp_path / "base")


@pytest.mark.parametrize("moment", ["adapter", "tokenizer", "merge"])
@pytest.mark.parametrize("old", [False, True], ids=["new", "over a model"])
def test_nothing_is_left(moment: str, old: bool, base: Path, tmp_path: Path):
    """Neither a directory that was not there, nor the adapter's; a model that was there is as it was."""
    if old:
        lorafold.merge(base, adapter_of(base, tmp_path), tmp_path / "out", dtype="f16")
        (tmp_path / "out" / "mine.txt").write_text("mine")
    before = state(tmp_path)
    interrupt(base, tmp_path / "out", moment)
    assert state(tmp_path) == before


def adapter_of(base: Path, tmp_path: Path) -> Path:
    help.trained(base).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_what_has_begun_to_be_put_in_place_is_finished(base: Path, tmp_path: Path):
    """The old model is gone in part by then: the new one comes whole before KeyboardInterrupt does."""
    adapter, out = adapter_of(base, tmp_path), tmp_path / "out"
    lorafold.merge(base, adapter, out, dtype="f16")
    lorafold.merge(base, adapter, tmp_path / "expected")
    interrupt(base, out, "publish")
    assert models.load_tensors(out).keys() == models.load_tensors(tmp_path / "expected").keys()
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "expected" / "model.safetensors").read_bytes()
    assert lorafold.verify(out).file_count and not list(out.glob(".lorafold*"))


@pytest.fixture
def hub() -> Iterator[TestHub]:
    with running_hub() as hub:
        yield hub


def helpers_of(hub: TestHub) -> list[int]:
    """Processes of helpers that speak to this hub."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"lorafold_hub" in (entry / "cmdline").read_bytes() and hub.url.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def test_a_push_is_given_up(base: Path, hub: TestHub, tmp_path: Path):
    """While a shard is on its way: nothing of it is seen on the Hub, here or among the processes."""
    stalled = hub.fail("PUT", "/storage/", times=9, hold=threading.Event())
    paths = help.environment()["PYTHONPATH"]
    known = environment(hub, tmp_path / "home") | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "0"}
    (tmp_path / "work").mkdir()
    interrupt(base, "ada/new", "upload", "push_to_hub_merged", lambda: stalled.reached.wait(TIMEOUT_SECONDS), 2, tmp_path / "work", known)
    assert not list((tmp_path / "work").iterdir())
    assert hub.count("POST", "/commit/") == 0 and not hub.state.repos["ada/new"].head().files
    assert not helpers_of(hub)

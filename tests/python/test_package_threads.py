"""Several merges at once, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import package_help as help  # first: it says where the package is
import lorafold
from conftest import TIMEOUT_SECONDS

# The slow kernels: 67 MB take long enough.
SLOW = {"kernels": "scalar", "threads": 1}


def test_two_merges_in_two_threads(large: Path, tmp_path: Path):
    """They overlap: each waits in its first progress until the other has begun."""
    both = threading.Barrier(2, timeout=TIMEOUT_SECONDS)

    def merge(name: str) -> lorafold.Report:
        begun = []

        def progress(now: lorafold.Progress) -> None:
            if not begun:
                begun.append(now)
                both.wait()

        return lorafold.merge(large / "base", large / "adapter", tmp_path / name, progress=progress)

    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(merge, ["one", "two"]))
    assert [Path(report.output).name for report in reports] == ["one", "two"]
    for shard in (tmp_path / "one").glob("*.safetensors"):
        assert shard.read_bytes() == (tmp_path / "two" / shard.name).read_bytes()


def test_python_runs_while_the_library_works(large: Path, tmp_path: Path):
    """The interpreter's lock is free: another thread gets on between start and end."""
    worker = threading.Thread(
        target=lorafold.merge, args=(large / "base", large / "adapter", tmp_path / "out"), kwargs=SLOW
    )
    worker.start()
    turns = 0
    while worker.is_alive():
        worker.join(0.001)
        turns += 1
    assert turns > 10


CHILD = """
import sys, lorafold
def begun(progress):
    print("begun", flush=True)
try:
    {call}
    print("finished")
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""
MERGE = "lorafold.merge(sys.argv[1], sys.argv[2], sys.argv[3], progress=begun, kernels='scalar', threads=1)"


@pytest.mark.parametrize("overwrite", [False, True])
def test_ctrl_c_ends_a_merge(overwrite: bool, large: Path, tmp_path: Path):
    out = tmp_path / "out"
    call = MERGE
    if overwrite:
        lorafold.merge(large / "base", large / "adapter", out, dtype="f16")
        call = MERGE.replace(")", ", overwrite=True)")
    before = sorted((path.name, path.stat().st_size) for path in tmp_path.rglob("*"))
    words = [sys.executable, "-c", CHILD.format(call=call), large / "base", large / "adapter", out]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=help.environment()) as child:
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        said, errors = child.communicate(timeout=TIMEOUT_SECONDS)
    assert (child.returncode, errors) == (130, "") and said.endswith("interrupted\n"), (said, errors)
    assert sorted((path.name, path.stat().st_size) for path in tmp_path.rglob("*")) == before


def test_ctrl_c_ends_a_verification(large: Path, tmp_path: Path):
    lorafold.merge(large / "base", large / "adapter", tmp_path / "out")

    def interrupt(progress: lorafold.Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        lorafold.verify(tmp_path / "out", progress=interrupt, threads=1)


def test_a_signal_whose_handler_raises_nothing_does_not_end_a_merge(large: Path, tmp_path: Path):
    caught = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))
    try:
        lorafold.merge(
            large / "base", large / "adapter", tmp_path / "out", progress=lambda now: os.kill(os.getpid(), signal.SIGUSR1)
        )
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught and lorafold.verify(tmp_path / "out").file_count

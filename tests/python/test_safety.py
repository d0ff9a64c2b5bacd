"""Interruptions and damage: no finished-looking output, no lost one, no damaged one that goes unseen."""

import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import models
from conftest import TIMEOUT_SECONDS, Run
from large import SEED
from test_merge_live import make_pair

def start(program: Path, large: Path, out: Path, adapter: str = "adapter", *options: str) -> subprocess.Popen[bytes]:
    words = [program, "merge", large / "base", "-a", large / adapter, "-o", out, "--kernels", "scalar", "-q", *options]
    return subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "the program neither works nor ends"
        time.sleep(0.001)


def work_begun(out: Path) -> Callable[[], bool]:
    """Some of a shard has been written in the work directory beside OUT."""
    work = out.with_name(out.name + ".partial")
    return lambda: any(path.stat().st_blocks for path in work.glob("*.safetensors"))


def contents(directory: Path) -> dict[str, bytes]:
    """Without the marker, which a run that is killed in the act of publishing may leave."""
    return {
        path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".json" and path.name != ".lorafold-work"
    }


def looks_finished(out: Path) -> bool:
    return (out / "config.json").exists() or (out / "model.safetensors.index.json").exists()


@pytest.mark.parametrize(
    ("adapter", "options"), [("adapter", []), ("prepared", []), ("adapter", ["--no-safe-serialization"])],
    ids=["adapter", "prepared", "torch"],
)  # fmt: skip
def test_kill_at_any_moment_leaves_nothing_finished(
    adapter: str, options: list[str], program: Path, lorafold: Run, large: Path, tmp_path: Path
):
    print(f"seed {SEED}")
    generator = random.Random(SEED)
    out = tmp_path / "out"
    begin = time.monotonic()
    lorafold("merge", large / "base", "-a", large / adapter, "-o", out, "--kernels", "scalar", *options)
    seconds = time.monotonic() - begin
    expected = contents(out)
    shutil.rmtree(out)
    killed = 0
    for _ in range(6):
        process = start(program, large, out, adapter, *options)
        try:
            process.wait(generator.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
        killed += process.wait() == -signal.SIGKILL
        if out.exists():  # it came too late, or in the act of publishing: then all is there
            assert contents(out) == expected
            shutil.rmtree(out)
    assert killed
    done = lorafold("merge", large / "base", "-a", large / adapter, "-o", out, *options)
    assert contents(out) == expected, done.stderr
    assert any(name.endswith(".bin") for name in expected) == bool(options)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_leaves_nothing(number: int, status: int, program: Path, large: Path, tmp_path: Path):
    out = tmp_path / "out"
    process = start(program, large, out)
    wait_until(work_begun(out), process)
    process.send_signal(number)
    assert process.wait(TIMEOUT_SECONDS) == status, process.stderr.read().decode()
    assert list(tmp_path.iterdir()) == []
    assert process.stderr.read().strip()
    process.stderr.close()


def test_signal_during_overwrite_keeps_the_old_model(program: Path, large: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("{}")
    (out / "model.safetensors").write_bytes(b"the old model")
    before = contents(out) | {"config.json": b"{}"}
    process = start_overwriting(program, large, out)
    wait_until(work_begun(out), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_SECONDS) == 130
    process.stderr.close()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def start_overwriting(program: Path, large: Path, out: Path) -> subprocess.Popen[bytes]:
    words = [program, "merge", large / "base", "-a", large / "adapter", "-o", out, "--overwrite", "--kernels", "scalar"]
    return subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE)


def test_an_existing_output_needs_overwrite(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    arguments = ["merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", tmp_path / "out"]
    lorafold(*arguments)
    first = contents(tmp_path / "out")
    done = lorafold(*arguments, status=2)
    assert "overwrite" in done.stderr
    assert contents(tmp_path / "out") == first
    lorafold(*arguments[:-1], tmp_path / "out", "--overwrite")
    assert contents(tmp_path / "out") == first
    assert not (tmp_path / "out.partial").exists()


def test_an_empty_output_directory_is_used(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    (tmp_path / "out").mkdir()
    lorafold("merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", tmp_path / "out")
    models.load(tmp_path / "out", torch.bfloat16)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_verify_names_the_damaged_file_and_block(lorafold: Run, large: Path, tmp_path: Path):
    out = tmp_path / "out"
    lorafold("merge", large / "base", "-a", large / "adapter", "-o", out)
    lorafold("verify", out)
    victim = out / "model-00002-of-00002.safetensors"
    block_bytes = 4 << 20
    for block in (0, 3, victim.stat().st_size // block_bytes):
        offset = min(block * block_bytes + 4000, victim.stat().st_size - 1)
        flip(victim, offset)
        done = lorafold("verify", out, status=5)
        assert victim.name in done.stderr and f"block {block}" in done.stderr
        flip(victim, offset)
    lorafold("verify", out)


def test_verify_sees_other_damage(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    out = tmp_path / "out"
    lorafold("merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", out)
    weights, config = out / "model.safetensors", out / "config.json"
    kept, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(kept[:-1])
    assert weights.name in lorafold("verify", out, status=5).stderr
    weights.unlink()
    assert weights.name in lorafold("verify", out, status=5).stderr
    weights.write_bytes(kept)
    config.write_text(text.replace("llama", "lama"))
    assert config.name in lorafold("verify", out, status=5).stderr
    config.write_text(text)
    lorafold("verify", out)
    (out / "lorafold.json").unlink()
    lorafold("verify", out, status=3)


def test_memory_promise_holds_for_a_model_above_it(lorafold: Run, program: Path, large: Path, tmp_path: Path):
    """67 MB of base and 2 MB of factors with a budget of 40 MiB."""
    words = ["merge", large / "base", "-a", large / "adapter", "-o", tmp_path / "out", "--memory", "40MiB", "--json"]
    lines = [json.loads(line) for line in lorafold(*words).stdout.splitlines()]
    peaks = [line["memory_peak_bytes"] for line in lines if "memory_peak_bytes" in line]
    assert peaks and max(peaks) <= 40 << 20

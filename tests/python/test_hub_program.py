"""Both ends of the pipe together: the C side, the real helper, the test hub."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_help import ROOT, STRANGER, TIMEOUT_SECONDS, TOKEN, environment, running_hub

from hub import Repo, TestHub

PROBE = Path(os.environ.get("LORAFOLD", ROOT / "build" / "lorafold")).resolve().parent / "tests" / "hub_probe"


@pytest.fixture
def hub() -> Iterator[TestHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def helper(tmp_path: Path) -> Path:
    program = tmp_path / "lorafold-hub"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lorafold_hub "$@"\n')
    program.chmod(0o755)
    return program


def probe(hub: TestHub, helper: Path, *words: str, token_file: str = "", token: str | None = TOKEN) -> tuple:
    env = environment(hub, helper.parent / "home", token, LORAFOLD_HUB=str(helper))
    done = subprocess.run(
        [PROBE, token_file, *words], env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr


def members(**values: object) -> str:
    return json.dumps(values)[1:-1]


def test_fetch_and_push(hub: TestHub, helper: Path, tmp_path: Path) -> None:
    shard, config = bytes(range(256)) * 1000, b"{}"
    hub.state.add(Repo("ada/base"), {"model.safetensors": shard, "config.json": config})
    hub.fail("POST", "/preupload/", status=429, headers={"Retry-After": "0"})
    token = tmp_path / 'my "token"'
    token.write_text(TOKEN)
    status, lines, log = probe(hub, helper, "fetch", members(repo="ada/base"), token_file=str(token), token=STRANGER)
    assert status == 0, lines
    directory = Path(json.loads(lines[0])["directory"])
    assert (directory / "model.safetensors").read_bytes() == shard
    words = ["create", members(repo="team/new")]
    for name in ("model.safetensors", "config.json"):
        words += ["store", members(path=name, file=str(directory / name))]
    words += ["commit", members(message="größer \U0001f680", tags=["x"])]
    status, lines, log = probe(hub, helper, *words, token_file=str(token), token=STRANGER)
    assert status == 0, lines
    head = hub.state.repos["team/new"].head()
    assert json.loads(lines[-1])["oid"] == head.oid and head.message == "größer \U0001f680"
    assert set(head.files) == {"model.safetensors", "config.json", "README.md"} and not hub.state.uploads
    assert "HTTP Error 429" in log  # what the library logs arrives too


def test_failures(hub: TestHub, helper: Path) -> None:
    status, lines, _ = probe(hub, helper, "fetch", members(repo="ada/none"))
    assert status == 1 and lines[0].startswith("1 'ada/none' is not on the Hub, or is private")
    status, lines, _ = probe(hub, helper, "fetch", members(repo="no//name"))
    assert status == 2 and lines[0].startswith("2 'no//name' is not the name of a repository")
    status, lines, _ = probe(hub, helper, token_file="/no/such/file")
    assert (status, lines) == (2, ["2 token file '/no/such/file': No such file or directory"])


def test_without_huggingface_hub(hub: TestHub, tmp_path: Path) -> None:
    """A Python that has no packages."""
    program = tmp_path / "lorafold-hub"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -m lorafold_hub\n')
    program.chmod(0o755)
    status, lines, _ = probe(hub, program)
    assert status == 2 and lines[0].startswith("2 the Python package 'huggingface_hub' is missing; install it ")
    assert f"{sys.executable} -m venv hub && " in lines[0]  # pip is one of them


@pytest.mark.parametrize(("is_environment", "is_managed"), [(True, True), (True, False), (False, True), (False, False)])
def test_what_to_install_where(is_environment: bool, is_managed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip refuses to install into the Python of a distribution: a hint that does not work is none."""
    sys.path.insert(0, str(ROOT / "python"))
    from lorafold_hub.__main__ import how_to_install

    if is_managed:
        (tmp_path / "EXTERNALLY-MANAGED").write_text("[externally-managed]\n")
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    monkeypatch.setattr(sys, "prefix", "/there")
    monkeypatch.setattr(sys, "base_prefix", "/usr" if is_environment else "/there")
    monkeypatch.setattr(sys, "executable", "/there/a b/python3")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert "'/there/a b/python3' -m venv" in how_to_install() and how_to_install().endswith("pip install huggingface_hub")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    hint = how_to_install()
    assert "'/there/a b/python3' -m pip install" in hint and hint.count("huggingface_hub") == 1
    assert ("--break-system-packages" in hint) == (is_managed and not is_environment)

"""push_to_hub_merged, by the genuine helper, to the test hub."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import package_help as help  # first: it says where the package is
from hub_help import TOKEN, environment, running_hub

from hub import Repo, TestHub

CODE = """
import json, sys
import lorafold
try:
    report = getattr(lorafold, sys.argv[1])(sys.argv[2], sys.argv[3], **json.loads(sys.argv[4]))
    print(json.dumps(report.raw))
except lorafold.LorafoldError as error:
    print(json.dumps({"error": str(error), "code": error.exit_code}))
"""


@pytest.fixture
def hub() -> Iterator[TestHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    help.trained(help.make_base(tmp_path / "base")).save_pretrained(tmp_path / "adapter")
    (tmp_path / "work").mkdir()
    return tmp_path / "adapter"


def call(hub: TestHub, function: str, adapter: Path, where: object, env_token: str | None = None, **options: object) -> dict:
    """What the call returns or raises, in a process that knows of the test hub alone."""
    work = adapter.parent / "work"
    paths = help.environment()["PYTHONPATH"]
    env = environment(hub, adapter.parent / "home", env_token) | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "0"}
    code = f"import os; os.chdir({str(work)!r})\n{CODE}"
    said = help.python(code, function, adapter, where, json.dumps(options), **env)
    assert TOKEN not in said
    return json.loads(said)


def contents(hub: TestHub, repo: str, reference: str = "main") -> dict[str, bytes]:
    return {path: hub.state.content(entry) for path, entry in hub.state.repos[repo].head(reference).files.items()}


def test_push(hub: TestHub, adapter: Path):
    options = {"commit_message": "all", "commit_description": "of it", "private": True, "tags": ["x"], "datasets": "team/data", "max_shard_size": "60KB"}
    report = call(hub, "push_to_hub_merged", adapter, "ada/new", token=TOKEN, **options)
    assert report["shards"] > 1, report
    repo, files = hub.state.repos["ada/new"], contents(hub, "ada/new")
    assert repo.private and (repo.head().message, repo.head().description) == ("all", "of it")
    assert hub.count("POST", "/commit/") == 1
    assert {"config.json", "lorafold.json", "model.safetensors.index.json", "README.md"} <= set(files)
    assert set(json.loads(files["model.safetensors.index.json"])["weight_map"].values()) <= set(files)
    assert b"- x\n" in files["README.md"] and b"datasets:\n- team/data\n" in files["README.md"]
    assert not list((adapter.parent / "work").iterdir())


def test_names_formats_and_places(hub: TestHub, adapter: Path, tmp_path: Path):
    """variant, safe_serialization and temporary_location of a push; the other variant on the Hub stays."""
    assert "output" in call(hub, "push_to_hub_merged", adapter, "ada/new", token=TOKEN)
    options = {"variant": "fp16", "safe_serialization": False, "temporary_location": str(tmp_path / "a" / "b")}
    report = call(hub, "push_to_hub_merged", adapter, "ada/new", token=TOKEN, **options)
    assert report["repo"] == "ada/new", report
    assert {name for name in contents(hub, "ada/new") if "model" in name} == {"model.safetensors", "pytorch_model.fp16.bin"}
    assert not list((tmp_path / "a" / "b").iterdir()) and not list((adapter.parent / "work").iterdir())


def test_save_and_push(hub: TestHub, adapter: Path):
    """The directory's name is that of the repository, as with Unsloth; it stays; the token is in the environment."""
    out = adapter.parent / "work" / "ada" / "kept"
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    report = call(hub, "save_pretrained_merged", adapter, "ada/kept", push_to_hub=True, env_token=TOKEN)
    assert report.get("output") == "ada/kept", report
    pushed = contents(hub, "ada/kept")
    assert "notes.txt" not in pushed and (out / "notes.txt").exists()
    local = {path.name: path.read_bytes() for path in out.iterdir() if path.name not in ("notes.txt", "README.md")}
    assert {name: data for name, data in pushed.items() if name not in ("README.md", ".gitattributes")} == local


def test_a_pull_request_and_a_revision(hub: TestHub, adapter: Path):
    assert "output" in call(hub, "push_to_hub_merged", adapter, "ada/new", token=TOKEN, revision="v1")
    assert "config.json" in contents(hub, "ada/new", "v1") and "config.json" not in contents(hub, "ada/new")
    assert "output" in call(hub, "push_to_hub_merged", adapter, "ada/new", token=TOKEN, create_pr=True)
    assert "config.json" in contents(hub, "ada/new", "refs/pr/1")


def test_the_hub_says_no_before_the_work(hub: TestHub, adapter: Path):
    said = call(hub, "push_to_hub_merged", adapter, "team/other")
    assert said["code"] == 1 and "token" in said["error"]
    said = call(hub, "save_pretrained_merged", adapter, "bob/mine", token=TOKEN, push_to_hub=True)
    assert said["code"] == 1, said
    assert not list((adapter.parent / "work").glob("*/*/*"))


def test_nothing_is_created_for_what_is_refused(hub: TestHub, adapter: Path):
    for options in ({"save_method": "x"}, {"max_shard_size": "0"}, {"tokenizer": "/nowhere"}):
        assert call(hub, "push_to_hub_merged", adapter, "ada/new", token=TOKEN, **options)["code"] == 2
    assert call(hub, "push_to_hub_merged", adapter, "new", token=TOKEN)["code"] == 2
    assert not hub.state.repos


def test_fetch(hub: TestHub, adapter: Path):
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights", "adapter_model.bin": b"no"}
    hub.state.add(Repo("ada/adapter", private=True), files)
    code = "import lorafold, sys; print(lorafold.fetch('ada/adapter', token=sys.argv[1]))"
    env = environment(hub, adapter.parent / "home", None) | {"PYTHONPATH": help.environment()["PYTHONPATH"], "HF_HUB_OFFLINE": "0"}
    directory = Path(help.python(code, TOKEN, **env).strip())
    assert {path.name for path in directory.iterdir()} == set(files) - {"adapter_model.bin"}


def test_what_cannot_be_pushed_is_kept(hub: TestHub, adapter: Path):
    hub.fail("POST", "/commit/", times=99, status=403)
    out = adapter.parent / "work" / "ada" / "kept"
    said = call(hub, "save_pretrained_merged", adapter, "ada/kept", push_to_hub=True, env_token=TOKEN)
    assert said["code"] == 1 and "'ada/kept' is complete, but it was not pushed: " in said["error"]
    assert said["error"].endswith("push it with: lorafold push ada/kept ada/kept")
    assert {"config.json", "lorafold.json", "model.safetensors"} <= {path.name for path in out.iterdir()}
    assert not list(out.glob(".lorafold*"))


def test_shards_leave_the_disk(hub: TestHub, adapter: Path):
    """The first shards are on the Hub before the last is made, and of those there are two at most."""
    hub.fail("PUT", "/storage/", hold=(held := threading.Event()))
    work, most, over = adapter.parent / "work", [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            most[0] = max(most[0], len(list(work.rglob("*.partial/*.safetensors"))))
            if len(hub.state.uploads) >= 2:
                held.set()
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        report = call(hub, "push_to_hub_merged", adapter, "ada/new", token=TOKEN, max_shard_size="30KB")
    finally:
        over.set()
        thread.join()
    assert report["shards"] > 3 and report["repo"] == "ada/new" and 0 < most[0] <= 2, (report, most)
    assert not list(work.iterdir())

"""The test hub is right as far as the genuine huggingface_hub can tell: it uploads to it and reads it back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_help import STRANGER, TOKEN, client, environment, running_hub

from hub import Repo, TestHub

SHARD = bytes(range(256)) * 800

UPLOAD = """
api = HfApi()
create_repo("ada/model", private=True)
create_repo("ada/model", private=True, exist_ok=True)
done = api.upload_folder(repo_id="ada/model", folder_path=sys.argv[1], commit_message="all of it")
print(done.oid)
"""
DOWNLOAD = """
import os
path = snapshot_download(sys.argv[1], revision=sys.argv[2])
print(path)
"""


@pytest.fixture
def hub() -> Iterator[TestHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(SHARD)
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\ntags:\n- a\n---\n# text\n")
    return folder


def test_upload_and_download(hub: TestHub, folder: Path, tmp_path: Path) -> None:
    env = environment(hub, tmp_path / "home")
    oid = client(UPLOAD, folder, env=env)
    repo = hub.state.repos["ada/model"]
    assert repo.head().oid == oid and repo.private and repo.head().message == "all of it"
    assert len(hub.state.uploads) == 1 and hub.count("POST", "/lfs/verify") == 1
    snapshot = Path(client(DOWNLOAD, "ada/model", "main", env=env))
    assert snapshot.name == oid
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_large_object_is_sent_once(hub: TestHub, folder: Path, tmp_path: Path) -> None:
    env = environment(hub, tmp_path / "home")
    client(UPLOAD, folder, env=env)
    code = "HfApi().upload_file(path_or_fileobj=sys.argv[1], path_in_repo='again.safetensors', repo_id='ada/model')"
    client(code, folder / "model.safetensors", env=env)
    assert len(hub.state.uploads) == 1 and "again.safetensors" in hub.state.repos["ada/model"].head().files


def test_branches_and_pull_requests(hub: TestHub, folder: Path, tmp_path: Path) -> None:
    env = environment(hub, tmp_path / "home")
    client(UPLOAD, folder, env=env)
    code = """
api = HfApi()
api.create_branch("ada/model", branch="a/b")
upload = dict(path_or_fileobj=b"x", repo_id="ada/model")
api.upload_file(path_in_repo="on-branch.txt", revision="a/b", **upload)
print(api.upload_file(path_in_repo="in-pr.txt", create_pr=True, **upload).pr_revision)
refs = api.list_repo_refs("ada/model", include_pull_requests=True)
print([r.name for r in refs.branches], [r.ref for r in refs.pull_requests])
print([f.path for f in api.get_paths_info("ada/model", ["in-pr.txt", "no"], revision="refs/pr/1")])
"""
    lines = client(code, env=env).splitlines()
    assert lines == ["refs/pr/1", "['main', 'a/b'] ['refs/pr/1']", "['in-pr.txt']"]
    repo = hub.state.repos["ada/model"]
    assert "on-branch.txt" in repo.head("a/b").files and "on-branch.txt" not in repo.head().files


def test_who_may_see_what(hub: TestHub, tmp_path: Path) -> None:
    hub.state.add(Repo("ada/private", private=True), {"config.json": b"{}"})
    hub.state.add(Repo("ada/gated", gated=True), {"config.json": b"{}"})
    code = """
for repo, revision in (("ada/private", None), ("ada/gated", None), ("ada/none", None), ("ada/gated", "no")):
    try:
        hf_hub_download(repo, "config.json", revision=revision)
        print("ok", end=" ")
    except Exception as error:
        print(type(error).__name__, end=" ")
try:
    print(whoami()["name"])
except Exception as error:
    print(type(error).__name__)
"""
    seen = {token: client(code, env=environment(hub, tmp_path / str(token), token)).split()
            for token in (TOKEN, STRANGER, None, "hf_bad")}
    missing = "RepositoryNotFoundError"
    assert seen[TOKEN] == ["ok", "ok", missing, "RevisionNotFoundError", "ada"]
    assert seen[STRANGER] == [missing, "GatedRepoError", missing, "GatedRepoError", "bob"]
    assert seen[None][:3] == [missing, "GatedRepoError", missing]
    assert seen["hf_bad"] == ["HfHubHTTPError"] * 5


def test_faults(hub: TestHub, folder: Path, tmp_path: Path) -> None:
    """The client itself gets over a cut upload, a 503 and a cut download."""
    hub.fail("PUT", "/storage/", cut=1000)
    hub.fail("POST", "/preupload/", status=503)
    env = environment(hub, tmp_path / "home")
    client(UPLOAD, folder, env=env)
    hub.fail("GET", "/storage/", cut=5000)
    snapshot = Path(client(DOWNLOAD, "ada/model", "main", env=env))
    assert (snapshot / "model.safetensors").read_bytes() == SHARD
    assert hub.count("PUT", "/storage/") == 2 and hub.count("GET", "/storage/") == 2
    assert all(fault.times == 0 for fault in hub.faults)


def test_applied_and_then_answered_504(hub: TestHub, folder: Path, tmp_path: Path) -> None:
    fault = hub.fail("POST", "/commit/", status=504, applied=True)
    with pytest.raises(AssertionError, match="504"):
        client(UPLOAD, folder, env=environment(hub, tmp_path / "home"))
    assert fault.times == 0 and "model.safetensors" in hub.state.repos["ada/model"].head().files


def test_parent_commit(hub: TestHub, folder: Path, tmp_path: Path) -> None:
    env = environment(hub, tmp_path / "home")
    oid = client(UPLOAD, folder, env=env)
    code = """
for parent in (sys.argv[1], sys.argv[1]):
    try:
        upload_file(path_or_fileobj=parent.encode() + b"%d" % len(sys.argv), path_in_repo="a", repo_id="ada/model",
                    parent_commit=parent)
        sys.argv.append("")
    except Exception as error:
        print(error.response.status_code)
"""
    assert client(code, oid, env=env) == "412"

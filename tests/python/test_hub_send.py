"""`lorafold push`: the program, the helper and the test hub together, faults included."""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_help import STRANGER, TOKEN, client, environment, running_hub
from hub_program import Program, Watch, children_of, eventually, files_of, interrupt, make_model

from hub import Repo, TestHub


@pytest.fixture
def hub() -> Iterator[TestHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def program(hub: TestHub, tmp_path: Path) -> Program:
    """With `out`, a merged model of two shards."""
    program = Program(hub, tmp_path)
    make_model(tmp_path / "base", tmp_path / "adapter")
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    program.ok("merge", "base", "-a", "adapter", "-o", "out", "--max-shard-size", "2KB")
    return program


def contents(hub: TestHub, repo: str, reference: str = "main") -> dict[str, bytes]:
    return {path: hub.state.content(entry) for path, entry in hub.state.repos[repo].head(reference).files.items()}


def shards(program: Program) -> list[Path]:
    return sorted((program.root / "out").glob("*.safetensors"))


def test_push(hub: TestHub, program: Program, tmp_path: Path) -> None:
    out = program.root / "out"
    (out / ".cache").mkdir()
    (out / ".cache" / "hidden").write_text("no")
    (out / ".hidden").write_text("no")
    (out / "extra").mkdir()
    (out / "extra" / "more.txt").write_text("yes")
    with Watch():
        done = program.ok("push", "out", "team/new", "--private", "--tag", "x", "--tag", "y", "--dataset", "team/data",
                          "--commit-message", "größer", "--commit-description", "and 'more'", "-v")
    repo = hub.state.repos["team/new"]
    assert repo.private and (repo.head().message, repo.head().description) == ("größer", "and 'more'")
    pushed, local = contents(hub, "team/new"), files_of(out)
    card = pushed.pop("README.md")
    assert b"- x\n- y\n" in card and b"datasets:\n- team/data\n" in card
    assert pushed == {name: data for name, data in local.items()
                      if not name.startswith(".") and name != "README.md"}
    assert hub.count("POST", "/commit/") == 1 and "extra/more.txt" in pushed
    assert f"commit    {hub.url}/team/new/commit/{repo.head().oid}" in done.stdout
    # A third party reads it, and it is the model that was pushed.
    got = tmp_path / "got"
    client("snapshot_download('team/new', local_dir=sys.argv[1])", got, env=environment(hub, tmp_path / "other"))
    program.ok("verify", out)
    assert {path.name: path.read_bytes() for path in got.glob("*.safetensors")} == {path.name: path.read_bytes()
                                                                                   for path in shards(program)}
    # Again: nothing is sent twice.
    uploads = list(hub.state.uploads)
    report = json.loads(program.ok("push", "out", "team/new", "--json").stdout.splitlines()[-1])
    assert hub.state.uploads == uploads and report["type"] == "report" and report["repo"] == "team/new"
    assert report["files_pushed"] == len(pushed) + 1 and report["bytes_pushed"] > 8000


def test_branches_and_requests(hub: TestHub, program: Program) -> None:
    program.ok("push", "out", "ada/new", "--revision", "v/1")
    assert "config.json" in contents(hub, "ada/new", "v/1") and "config.json" not in contents(hub, "ada/new")
    done = program.ok("push", "out", "ada/new", "--create-pr")
    assert f"request   {hub.url}/ada/new/discussions/1" in done.stdout
    assert "config.json" in contents(hub, "ada/new", "refs/pr/1")
    program.ok("push", "out", "mine")
    assert "config.json" in contents(hub, "ada/mine")


def test_a_card_stays(hub: TestHub, program: Program) -> None:
    hub.state.add(Repo("ada/new"), {"README.md": b"---\ntags:\n- mine\n---\nmy words\n",
                                    "model-00003-of-00009.safetensors": b"stale", "notes.txt": b"kept"})
    program.ok("push", "out", "ada/new", "--tag", "x")
    files = contents(hub, "ada/new")
    assert files["README.md"].endswith(b"my words\n") and b"- mine\n- lora\n- lorafold\n- x\n" in files["README.md"]
    assert "model-00003-of-00009.safetensors" not in files and files["notes.txt"] == b"kept"


def test_damage_is_not_pushed(hub: TestHub, program: Program) -> None:
    out = program.root / "out"
    shard = shards(program)[1]
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    assert f"'{shard.name}' is not what was written: it differs in block 0" in program.refused(5, "push", "out", "ada/x")
    shard.write_bytes(data[:-1])
    assert f"'{shard.name}' has {len(data) - 1} bytes and should have {len(data)}" in program.refused(5, "push", "out", "ada/x")
    shard.unlink()
    assert f"'{shard.name}' of lorafold.json is not in 'out'" in program.refused(5, "push", "out", "ada/x")
    data[-3] ^= 1
    shard.write_bytes(data)
    assert hub.count("POST", "/commit/") == 0
    (out / "README.md").write_text("my own card")
    (out / "tokenizer.json").unlink()
    done = program.ok("push", "out", "ada/x")
    assert "note: 'README.md' has 11 bytes and should have" in done.stderr
    assert contents(hub, "ada/x")["README.md"] == b"my own card"
    (out / "lorafold.json").unlink()  # a model that is not ours
    program.ok("push", "out", "ada/other")


def test_an_adapter_and_a_model_are_not_mixed(hub: TestHub, program: Program) -> None:
    """Loaders would take the one for a part of the other: refused before anything is sent, by each way to push."""
    adapter = files_of(program.root / "adapter")
    model = {"config.json": b"{}", "model-00001-of-00002.safetensors": b"1", "model.safetensors.index.json": b"{}"}
    hub.state.add(Repo("ada/adapter"), adapter)
    hub.state.add(Repo("ada/model"), model)
    hub.state.add(Repo("ada/torch"), {"pytorch_model.bin": b"1"})
    pushes = [("push", "out"), ("merge", "base", "-a", "adapter", "-o", "more", "--push-to-hub"),
              ("merge", "base", "-a", "adapter", "--no-local", "--push-to-hub")]  # fmt: skip
    for push in pushes:
        for more in ((), ("--create-pr",), ("--revision", "v1")):
            sentence = program.refused(2, *push, "ada/adapter", *more)
            assert "'ada/adapter' holds an adapter, which loaders would put on top of the merged model" in sentence
            assert sentence.endswith("hf repos delete-files ada/adapter adapter_config.json adapter_model.safetensors")
    for repo in ("ada/model", "ada/torch"):
        assert "holds a whole model" in program.refused(2, "push", "adapter", repo)
        sentence = program.refused(2, "merge", "base", "-a", "adapter", "-o", "more", "--save-method", "lora", "--push-to-hub", repo)
        assert f"hf repos delete-files {repo} " in sentence
    assert not hub.state.uploads and hub.count("POST", "/commit/") == 0 and not (program.root / "more").exists()
    program.ok("push", "adapter", "ada/adapter")  # each over its own kind
    program.ok("push", "out", "ada/model")
    assert "model.safetensors.index.json" in contents(hub, "ada/model")


REFUSALS = [
    ("ada/x", "hf_wrongwrongwrong", 1, "the Hub does not accept the token from HF_TOKEN"),
    ("ada/x", None, 1, "set HF_TOKEN, run 'hf auth login'"),
    ("ada/x", STRANGER, 1, "may not do this to 'ada/x'"),
]


@pytest.mark.parametrize(("repo", "token", "status", "words"), REFUSALS)
def test_who_may_not(hub: TestHub, program: Program, repo: str, token: str | None, status: int, words: str) -> None:
    sentence = program.refused(status, "push", "out", repo, token=token)
    assert words in sentence and not hub.state.uploads


def test_faults(hub: TestHub, program: Program) -> None:
    hub.fail("PUT", "/storage/", cut=500)
    hub.fail("POST", "/preupload/", status=429, headers={"Retry-After": "5"})
    hub.fail("POST", "/commit/", status=504, applied=True)
    done = program.ok("push", "out", "ada/new")
    assert "note: the Hub limits requests; waiting 6 s as it asks" in done.stderr
    assert len([one for one in hub.state.repos["ada/new"].commits.values() if one.files]) == 1
    hub.fail("PUT", "/storage/", times=99, status=500)
    (program.root / "out" / "lorafold.json").unlink()
    shards(program)[0].write_bytes(b"another")
    sentence = program.refused(1, "push", "out", "ada/new")
    assert "failed (status 500)" in sentence or "rejects" in sentence
    assert len([one for one in hub.state.repos["ada/new"].commits.values() if one.files]) == 1
    assert "cannot be reached" in program.refused(1, "push", "out", "ada/new", HF_ENDPOINT="http://127.0.0.1:9")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_again(hub: TestHub, program: Program, number: int) -> None:
    """One shard is there, the other on its way."""
    held = threading.Event()
    hub.fail("PUT", "/storage/", times=0)
    reached = hub.fail("PUT", f"/storage/(?!{'0' * 64})", hold=held)
    process = program.start("push", "out", "ada/new")
    assert reached.reached.wait(60)
    eventually(lambda: len(hub.state.uploads) == 1, "the other shard does not come")
    done = interrupt(program, process, number)
    assert done.status == (-9 if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert "nothing of it is seen in 'ada/new'" in done.stderr or "interrupted" in done.stderr
    held.set()
    hub.faults.clear()
    assert not contents(hub, "ada/new") and hub.count("POST", "/commit/") == 0
    program.ok("push", "out", "ada/new")
    assert len(hub.state.uploads) <= 3 and len(set(hub.state.uploads)) == 2
    assert {path.name for path in shards(program)} <= set(contents(hub, "ada/new"))


def test_stopped_at_the_commit(hub: TestHub, program: Program) -> None:
    fault = hub.fail("POST", "/commit/", hold=threading.Event())
    process = program.start("push", "out", "ada/new")
    assert fault.reached.wait(60)
    done = interrupt(program, process)
    assert done.status == 130
    fault.hold.set()
    program.ok("push", "out", "ada/new")


def test_the_helper_is_killed(hub: TestHub, program: Program) -> None:
    fault = hub.fail("PUT", "/storage/", hold=threading.Event())
    process = program.start("push", "out", "ada/new")
    assert fault.reached.wait(60)
    for pid in children_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    done = program.finish(process)
    assert done.status == 1 and "ended in the middle: signal 9" in done.stderr
    fault.hold.set()
    program.ok("push", "out", "ada/new")


GREETED = "read -r x; echo '{\"id\": 1, \"done\": {\"protocol\": 1}}'; read -r x; echo '{\"id\": 2, \"done\": {}}'; "
LIES = [
    # what follows, words of the sentence
    ("exit 3", "ended in the middle: exit status 3"),
    ("read -r x; echo '{\"id\": 99, \"done\": {}}'; cat >/dev/null", "gives what is no answer"),
    ("read -r x; echo '{\"id\": 3, \"done\": 7}'; cat >/dev/null", "gives what is no answer"),
    ("read -r x; head -c 100000 /dev/zero; cat >/dev/null", "gives what is no answer"),
    ("i=3; while read -r x; do echo '{\"id\": '$i', \"done\": {}}'; i=$((i + 1)); done", "was made, but not which"),
    ("read -r x; echo '{\"id\": 3, \"error\": \"x\", \"exit\": 9, \"sentence\": \"no\\u0007\"}'; cat >/dev/null", "no\\x07"),
    ("read -r x; echo '{\"id\": 0, \"error\": \"x\", \"exit\": 1, \"sentence\": \"over\"}'; cat >/dev/null", "over"),
]


@pytest.mark.parametrize(("script", "words"), LIES)
def test_a_helper_that_is_wrong(program: Program, script: str, words: str) -> None:
    program.write_helper(GREETED + script)
    assert words in program.refused(1, "push", "out", "ada/new")
    sentence = program.refused(1, "merge", "base", "-a", "adapter", "--push-to-hub", "ada/new", "--no-local")
    assert words in sentence and not list(program.root.glob("lorafold-*"))
    sentence = program.refused(1, "merge", "base", "-a", "adapter", "--push-to-hub", "ada/new", "-o", "other")
    assert "'other' is complete, but it was not pushed" in sentence and words in sentence
    program.ok("verify", "other")


def test_progress_of_what_goes_there(hub: TestHub, program: Program) -> None:
    (program.root / "out" / "lorafold.json").unlink()
    shards(program)[0].write_bytes(bytes(range(256)) * 40000)
    done = program.ok("push", "out", "ada/new", "--json")
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [step for step in steps if step["type"] == "progress"]
    assert steps and all(step["limit"] == "upload" and step["file"] == "ada/new" for step in steps)
    assert steps[-1]["bytes_done"] == steps[-1]["bytes_total"] > 10_000_000


def test_names_that_are_odd(hub: TestHub, program: Program) -> None:
    out = program.root / "out"
    out.rename(program.root / "it's here")
    (program.root / "it's here" / 'a "name"\\with é').write_text("x")
    program.ok("push", "it's here", "ada/new")
    assert 'a "name"\\with é' in contents(hub, "ada/new")
    with open(os.fsencode(program.root / "it's here") + b"/bad\xff", "w"):
        pass
    assert "bytes that no name on the Hub may have" in program.refused(2, "push", "it's here", "ada/new")

"""The helper fetches: which files, resumed and once only, and one sentence per kind of failure."""

import errno
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_help import ROOT, STRANGER, TOKEN, Helper, running_hub

from hub import Repo, TestHub
from hub.state import large

sys.path.insert(0, str(ROOT / "python"))
from lorafold_hub.failures import About, explain  # noqa: E402
from lorafold_hub.files import choose  # noqa: E402
from lorafold_hub.lines import Channel  # noqa: E402

SHARD = bytes(range(256)) * 800
FILES = {
    "config.json": b"{}", "tokenizer.json": b"{}", "README.md": b"text", "modeling_x.py": b"pass",
    "model-00001-of-00002.safetensors": SHARD, "model-00002-of-00002.safetensors": SHARD[::-1],
    "model.safetensors.index.json": b"{}", "LICENSE": b"free", "1_Pooling/config.json": b"{}",
    "vocab[1].json": b"brackets",
}
OTHERS = {
    "consolidated.safetensors": b"c", "pytorch_model.bin": b"p", "optimizer.pt": b"o", "onnx/model.onnx": b"x",
    "model.fp16.safetensors": b"f", ".gitattributes": b"g", "picture.png": b"i", "checkpoint-5/model.safetensors": b"k",
}


@pytest.fixture
def hub() -> Iterator[TestHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def tree(directory: str) -> dict[str, bytes]:
    root = Path(directory)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_fetch_what_a_merge_needs(hub: TestHub, home: Path) -> None:
    repo = hub.state.add(Repo("ada/base", private=True), FILES | OTHERS)
    with Helper(hub, home) as helper:
        assert helper.done("hello") == {"protocol": 1, "helper": "0.1.0", "huggingface_hub": "2.4.0", "token": True}
        done = helper.done("fetch", repo="ada/base")
        assert tree(done["directory"]) == FILES and done["commit"] == repo.head().oid
        assert done["bytes"] == sum(map(len, FILES.values())) and done["files"] == len(FILES)
        steps = [line["progress"] for line in helper.lines if "progress" in line]
        assert steps[-1] == {"bytes": done["bytes"], "total": done["bytes"]}
        assert [step["bytes"] for step in steps] == sorted(step["bytes"] for step in steps)
        loads = hub.count("GET", "/storage/")
        again = helper.done("fetch", repo="ada/base", revision=repo.head().oid)
        assert again["directory"] == done["directory"] and again["bytes"] == 0
        assert hub.count("GET", "/storage/") == loads == 2
    assert (home / "hub/models--ada--base/refs/main").read_text() == done["commit"]
    assert TOKEN not in "".join(path.read_bytes().decode("latin-1") for path in home.rglob("*") if path.is_file())


def test_fetch_gets_over_a_cut_and_a_limit(hub: TestHub, home: Path) -> None:
    repo = hub.state.add(Repo("ada/base"), FILES)
    repo.references["v1"] = repo.head().oid
    hub.fail("GET", "/storage/", cut=70000)
    hub.fail("GET", "/revision/v1", status=429, headers={"Retry-After": "0"})
    hub.fail("HEAD", "/resolve/", status=429, headers={"ratelimit": '"resolvers";r=0;t=0'})
    with Helper(hub, home, token=None) as helper:
        assert helper.done("hello")["token"] is False
        assert tree(helper.done("fetch", repo="ada/base", revision="v1")["directory"]) == FILES
    assert all(fault.times == 0 for fault in hub.faults)


def test_choice_of_files() -> None:
    assert choose(sorted(FILES | OTHERS)) == sorted(FILES)
    assert choose(["adapter_config.json", "adapter_model.bin", "optimizer.bin"]) == ["adapter_config.json",
                                                                                   "adapter_model.bin"]
    both = ["adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"]
    assert choose(both) == ["adapter_config.json", "adapter_model.safetensors"]
    assert choose(["model.fp16.safetensors", "config.json"]) == ["config.json", "model.fp16.safetensors"]
    steps = [f"checkpoint-{n}/adapter_{kind}" for n in (9, 10) for kind in ("config.json", "model.safetensors")]
    assert choose([*steps, "checkpoint-10/optimizer.pt", "README.md"]) == ["README.md", *sorted(steps[2:])]
    assert choose(["README.md", "model.gguf"]) == []


FETCHES = [
    # repository, revision, token, kind, words of the sentence
    ("ada/none", None, TOKEN, "repo_missing", "'ada/none' is not on the Hub, or is private and the token from HF_TOKEN"),
    ("ada/none", None, None, "repo_missing", "no token was given: set HF_TOKEN"),
    ("ada/private", None, STRANGER, "repo_missing", "is private and the token from HF_TOKEN may not see it"),
    ("ada/gated", None, STRANGER, "gated", "'ada/gated' is gated: accept its terms at http"),
    ("ada/gated", None, None, "gated", "log in (no token was given"),
    ("ada/open", "v9", TOKEN, "revision_missing", "'ada/open' has no revision 'v9'"),
    ("ada/open", None, "hf_thisIsNoTokenOfAnybody", "bad_token", "does not accept the token from HF_TOKEN"),
    ("ada/empty", None, TOKEN, "no_weights", "'ada/empty' holds no safetensors weights"),
    ("ada/huge", None, TOKEN, "no_space", "1000000000.00 GB are to be fetched"),
    ("ada//x", None, TOKEN, "name", "'ada//x' is not the name of a repository"),
    ("../etc", None, TOKEN, "name", "is not the name of a repository"),
]


@pytest.mark.parametrize(("repo", "revision", "token", "kind", "words"), FETCHES)
def test_one_sentence_per_kind(
    hub: TestHub, home: Path, repo: str, revision: str | None, token: str | None, kind: str, words: str
) -> None:
    hub.state.add(Repo("ada/private", private=True), FILES)
    hub.state.add(Repo("ada/gated", gated=True), FILES)
    hub.state.add(Repo("ada/open"), FILES)
    hub.state.add(Repo("ada/empty"), {"README.md": b"text"})
    huge = hub.state.add(Repo("ada/huge"), FILES)
    huge.head().files["model.safetensors"] = large("0" * 64, 10**18)
    with Helper(hub, home, token) as helper:
        helper.done("hello")
        got, status, sentence = helper.refused("fetch", repo=repo, revision=revision)
    assert (got, status) == (kind, 2 if kind == "name" else 1) and words in sentence
    assert not sentence.endswith(".")


def test_offline_and_unreachable(hub: TestHub, home: Path) -> None:
    with Helper(hub, home, HF_HUB_OFFLINE="1") as helper:
        helper.done("hello")
        assert helper.refused("fetch", repo="ada/x")[::2] == (
            "offline", "HF_HUB_OFFLINE is set, and 'ada/x' must be asked for on the Hub")
    hub._server.socket.close()  # nobody listens there any more
    with Helper(hub, home) as helper:
        helper.done("hello")
        kind, status, sentence = helper.refused("fetch", repo="ada/x")
    assert (kind, status) == ("network", 1) and sentence.startswith(f"the Hub at {hub.url} cannot be reached: ")


def test_limits_that_last(hub: TestHub, home: Path) -> None:
    hub.state.add(Repo("ada/base"), FILES)
    hub.fail("GET", "/revision/main", status=429, headers={"Retry-After": "90000"})
    with Helper(hub, home) as helper:
        helper.done("hello")
        kind, status, sentence = helper.refused("fetch", repo="ada/base", revision="main")
        assert (kind, status) == ("rate_limited", 1) and "asks to wait 90000 s" in sentence
        hub.fail("GET", "/revision/main", times=99, status=429, headers={"Retry-After": "0"})
        assert helper.refused("fetch", repo="ada/base", revision="main")[0] == "rate_limited"
        hub.faults[-1].status = 503
        assert helper.refused("fetch", repo="ada/base", revision="main")[0] == "server"


def test_full_disk_in_the_middle() -> None:
    failure = explain(OSError(errno.ENOSPC, "x", "/cache/blob"), About("a/b"))
    assert failure.kind == "no_space" and failure.sentence == "no space left for '/cache/blob': No space left on device"


def test_tokens(hub: TestHub, home: Path, tmp_path: Path) -> None:
    """From a file that is named, else HF_TOKEN, else the tools' file; and in no message, whoever sends it back."""
    hub.state.add(Repo("ada/private", private=True), FILES)
    named, wrong = tmp_path / "named", tmp_path / "wrong"
    named.write_text(TOKEN + "\n")
    wrong.write_text("two words")
    with Helper(hub, home, STRANGER, HF_DEBUG="1") as helper:
        helper.done("hello", token_file=str(named))
        helper.done("fetch", repo="ada/private")
        hub.fail("GET", "/revision/x", status=403, headers={"X-Error-Message": f"no access for {TOKEN}"})
        kind, _, sentence = helper.refused("fetch", repo="ada/private", revision="x")
        assert kind == "no_access" and "no access for <token>" in sentence and f"'{named}'" in sentence
    home.mkdir(exist_ok=True)
    (home / "token").write_text(TOKEN)
    with Helper(hub, home, None) as helper:
        assert helper.done("hello")["token"] is True
        helper.done("fetch", repo="ada/private")
        kind, _, sentence = helper.refused("fetch", repo="ada/none")
        assert f"the token from '{home / 'token'}'" in sentence
    for path, words in ((tmp_path / "none", "No such file"), (wrong, "does not hold one token")):
        with Helper(hub, home, None) as helper:
            kind, status, sentence = helper.refused("hello", token_file=str(path))
            assert (kind, status) == ("token_file", 2) and words in sentence and f"'{path}'" in sentence


def test_lines_are_what_the_program_reads() -> None:
    """Valid UTF-8 and no lone surrogates, as names of files that are not UTF-8 have in Python."""
    out = io.BytesIO()
    channel = Channel(io.BytesIO(), out)
    channel.hide("secretsecret")
    channel.write({"a": ["x\udcff", {"b": "my secretsecret"}]})
    assert json.loads(out.getvalue()) == {"a": ["x\\udcff", {"b": "my <token>"}]}


def test_requests_that_are_none(hub: TestHub, home: Path) -> None:
    with Helper(hub, home) as helper:
        assert helper.refused("fetch", repo="ada/x")[0] == "request"
        assert helper.refused("dance")[0] == "request"
        helper.done("hello")
        assert helper.refused("fetch")[0] == "request"
        assert helper.refused("fetch", repo=7)[0] == "request"
        assert helper.refused("store", path="a", file="b")[0] == "request"
        assert helper.refused("commit", message="x")[0] == "request"
    for line in ("{", "[]", '{"do": "hello"}', json.dumps({"id": 1, "do": "x" * 70000})):
        with Helper(hub, home) as helper:
            helper.send(line)
            assert helper.answer(0)["error"] == "request"
            assert helper.finish() == 1


def test_end_of_the_conversation(hub: TestHub, home: Path) -> None:
    with Helper(hub, home) as helper:
        helper.done("hello")
        assert helper.finish() == 0
    with Helper(hub, home) as helper:
        helper.done("hello")
        assert helper.done("abort") == {} and helper.process.wait(10) == 0

"""The helper pushes: overlapping uploads, one commit, never twice, resumed after a kill, an old card kept."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_help import STRANGER, TOKEN, Helper, running_hub

from hub import Repo, TestHub

SHARDS = {f"model-0000{n}-of-00003.safetensors": bytes([n]) * 200_000 for n in (1, 2, 3)}
SMALL = {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {}}'}
OWN_CARD = "---\nbase_model: team/base\nbase_model_relation: finetune\nlibrary_name: transformers\ntags:\n- lora\n---\n\n# New\n"


@pytest.fixture
def hub() -> Iterator[TestHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    for name, content in (SHARDS | SMALL).items():
        (directory / name).write_bytes(content)
    return directory


def push(helper: Helper, model: Path, repo: str = "ada/new", names: list[str] | None = None, **create: object) -> None:
    """Everything but the commit."""
    helper.done("hello")
    helper.done("create", repo=repo, **create)
    asked = [helper.ask("store", path=name, file=str(model / name)) for name in names or sorted(SHARDS | SMALL)]
    for number in asked:
        assert "done" in helper.answer(number), helper.lines


def contents(hub: TestHub, repo: str = "ada/new", reference: str = "main") -> dict[str, bytes]:
    return {path: hub.state.content(entry) for path, entry in hub.state.repos[repo].head(reference).files.items()}


def test_push(hub: TestHub, home: Path, model: Path) -> None:
    with Helper(hub, home) as helper:
        helper.done("hello")
        assert helper.done("create", repo="ada/new", private=True) == {"repo": "ada/new", "url": f"{hub.url}/ada/new"}
        for name, content in SHARDS.items():
            done = helper.done("store", path=name, file=str(model / name), delete=True)
            assert done == {"bytes": len(content), "stored": True, "deleted": True} and not (model / name).exists()
        for name in SMALL:
            done = helper.done("store", path=name, file=str(model / name), delete=True)
            assert not done["stored"] and not done["deleted"] and (model / name).exists()
        repo = hub.state.repos["ada/new"]
        assert repo.private and not repo.head().files and len(repo.commits) == 1
        done = helper.done("commit", message="all", description="of it", tags=["merged"], base_model="team/base")
        assert done["oid"] == repo.head().oid and done["url"].endswith(done["oid"]) and done["pull_request"] is None
        assert (repo.head().message, repo.head().description) == ("all", "of it") and len(repo.commits) == 2
        assert helper.finish() == 0
    card = b"---\nbase_model: team/base\ntags:\n- merged\n---\n"
    assert contents(hub) == SHARDS | SMALL | {"README.md": card}
    assert hub.count("POST", "/commit/") == 1


def test_uploads_overlap(hub: TestHub, home: Path, model: Path) -> None:
    """A shard is stored while an earlier one is still on its way."""
    first, second = sorted(SHARDS)[:2]
    slow = hub.fail("PUT", hashlib.sha256(SHARDS[first]).hexdigest(), hold=threading.Event())
    with Helper(hub, home) as helper:
        helper.done("hello")
        helper.done("create", repo="ada/new")
        number = helper.ask("store", path=first, file=str(model / first))
        assert slow.reached.wait(60)
        helper.done("store", path=second, file=str(model / second))
        assert not [line for line in helper.lines if line.get("id") == number and "progress" not in line]
        slow.hold.set()
        assert "done" in helper.answer(number)


def test_resumed_after_a_kill(hub: TestHub, home: Path, model: Path) -> None:
    one, two, three = sorted(SHARDS)
    slow = hub.fail("PUT", hashlib.sha256(SHARDS[two]).hexdigest(), hold=threading.Event())
    with Helper(hub, home) as helper:
        push(helper, model, names=[one])
        helper.ask("store", path=two, file=str(model / two))
        assert slow.reached.wait(60)
        helper.process.kill()
    assert not contents(hub) and len(hub.state.uploads) == 1  # nothing is visible of a push that was cut off
    with Helper(hub, home) as helper:
        push(helper, model)
        helper.done("commit", message="all")
    sent = [hashlib.sha256(SHARDS[name]).hexdigest() for name in (one, two, three)]
    assert sorted(hub.state.uploads) == sorted(sent) and contents(hub) == SHARDS | SMALL
    puts = hub.count("PUT", "/storage/")
    with Helper(hub, home) as helper:  # and what is there wholly is neither sent nor committed again
        push(helper, model)
        assert helper.done("commit", message="again")["oid"] == hub.state.repos["ada/new"].head().oid
    assert hub.count("PUT", "/storage/") == puts and len(hub.state.repos["ada/new"].commits) == 2


@pytest.mark.parametrize("how", ["closed", "abort"])
def test_given_up_in_the_middle(hub: TestHub, home: Path, model: Path, how: str) -> None:
    """A program that dies closes the pipe: the helper ends at once, whatever is under way."""
    slow = hub.fail("PUT", "/storage/", hold=threading.Event())
    with Helper(hub, home) as helper:
        push(helper, model, names=["config.json"])
        helper.ask("store", path="model.safetensors", file=str(model / sorted(SHARDS)[0]))
        assert slow.reached.wait(60)
        if how == "abort":
            assert helper.done("abort") == {}
        helper.process.stdin.close()
        assert helper.process.wait(20) == (1 if how == "closed" else 0)
    assert not contents(hub)


def test_faults_that_pass(hub: TestHub, home: Path, model: Path) -> None:
    faults = [
        hub.fail("POST", "/repos/create", status=429, headers={"Retry-After": "5"}),
        hub.fail("PUT", "/storage/", cut=1000),
        hub.fail("POST", "/preupload/", status=502),
        hub.fail("POST", "/commit/", status=503),
    ]
    with Helper(hub, home) as helper:
        push(helper, model)
        helper.done("commit", message="all")
        assert helper.notices() == ["the Hub limits requests; waiting 6 s as it asks"]
    assert all(fault.times == 0 for fault in faults)
    assert contents(hub) == SHARDS | SMALL and len(hub.state.repos["ada/new"].commits) == 2


@pytest.mark.parametrize("create_pr", [False, True])
def test_a_commit_whose_answer_is_lost_is_not_made_twice(
    hub: TestHub, home: Path, model: Path, create_pr: bool
) -> None:
    hub.state.add(Repo("ada/new"), {"a.txt": b"a"})
    hub.fail("POST", "/commit/", status=504, applied=True)
    with Helper(hub, home) as helper:
        push(helper, model, create_pr=create_pr)
        done = helper.done("commit", message="all")
    repo = hub.state.repos["ada/new"]
    reference = "refs/pr/1" if create_pr else "main"
    assert done["oid"] == repo.head(reference).oid and hub.count("POST", "/commit/") == 1
    assert done["pull_request"] == (f"{hub.url}/ada/new/discussions/1" if create_pr else None)
    assert repo.pull_requests() == (["refs/pr/1"] if create_pr else [])
    assert contents(hub, reference=reference) == SHARDS | SMALL | {"a.txt": b"a"}


def test_commit_of_somebody_else_meanwhile(hub: TestHub, home: Path, model: Path) -> None:
    repo = hub.state.add(Repo("ada/new"), {"a.txt": b"a"})
    late = hub.fail("POST", "/commit/", hold=threading.Event())
    with Helper(hub, home) as helper:
        push(helper, model)
        number = helper.ask("commit", message="all")
        assert late.reached.wait(60)
        repo.commit("main", repo.head().files | {"b.txt": hub.state.entry("b.txt", b"b")}, "meanwhile")
        late.hold.set()
        assert "done" in helper.answer(number)
    assert contents(hub) == SHARDS | SMALL | {"a.txt": b"a", "b.txt": b"b"} and len(repo.commits) == 4
    assert hub.count("POST", "/commit/") == 2  # the first was refused: it was made for another parent


def test_failures_that_last(hub: TestHub, home: Path, model: Path) -> None:
    hub.fail("POST", "/commit/", times=99, status=503, headers={"Retry-After": "0"})
    with Helper(hub, home) as helper:
        push(helper, model)
        kind, status, sentence = helper.refused("commit", message="all")
    assert (kind, status) == ("server", 1) and sentence.endswith("failed (status 503); try again later")
    assert not contents(hub)


def test_a_commit_needs_every_file(hub: TestHub, home: Path, model: Path) -> None:
    with Helper(hub, home) as helper:
        push(helper, model)
        kind, status, sentence = helper.refused("store", path="more.safetensors", file=str(model / "none"))
        assert (kind, status) == ("local", 1) and sentence == "'more.safetensors' cannot be read: No such file or directory"
        assert helper.refused("store", path="config.json", file=str(model / "config.json"))[0] == "request"
        assert helper.refused("commit", message="all")[2] == sentence
    assert not contents(hub)


@pytest.mark.parametrize("path", ["../a", "a/../../b", ".git/config", "."])
def test_paths_that_leave_the_repository(hub: TestHub, home: Path, model: Path, path: str) -> None:
    with Helper(hub, home) as helper:
        push(helper, model, names=["config.json"])
        assert helper.refused("store", path=path, file=str(model / "config.json"))[0] == "local"


def test_a_file_that_the_repository_ignores(hub: TestHub, home: Path, model: Path) -> None:
    (model / "ignored.safetensors").write_bytes(b"x")
    with Helper(hub, home) as helper:
        push(helper, model, names=["config.json", "ignored.safetensors"])
        kind, _, sentence = helper.refused("commit", message="all")
    assert kind == "incomplete" and "'ignored.safetensors' is not in the commit" in sentence


CREATES = [
    # token, members, kind, exit, words
    (STRANGER, {"repo": "ada/new"}, "no_access", 1, "the token from HF_TOKEN may not do this to 'ada/new': You don't"),
    (STRANGER, {"repo": "ada/open"}, "no_access", 1, "You don't have the rights to write to this repository"),
    (None, {"repo": "ada/new"}, "no_token", 1, "the Hub wants a token for 'ada/new', and no token was given"),
    ("hf_thisIsNoTokenOfAnybody", {"repo": "ada/new"}, "bad_token", 1, "does not accept the token from HF_TOKEN"),
    (TOKEN, {"repo": "a b/c"}, "name", 2, "'a b/c' is not the name of a repository"),
    (TOKEN, {"repo": "ada/new", "create_pr": True, "revision": "v1"}, "option", 2, "a pull request goes to main"),
]


@pytest.mark.parametrize(("token", "members", "kind", "status", "words"), CREATES)
def test_refusals_before_the_work(
    hub: TestHub, home: Path, token: str | None, members: dict, kind: str, status: int, words: str
) -> None:
    hub.state.add(Repo("ada/open"), {"a.txt": b"a"})
    with Helper(hub, home, token) as helper:
        helper.done("hello")
        got = helper.refused("create", **members)
    assert got[:2] == (kind, status) and words in got[2]


def test_revision_and_pull_request(hub: TestHub, home: Path, model: Path) -> None:
    repo = hub.state.add(Repo("ada/open"), {"a.txt": b"a"})
    with Helper(hub, home) as helper:
        push(helper, model, repo="ada/open", revision="a/branch")
        helper.done("commit", message="to a branch")
    assert contents(hub, "ada/open", "a/branch") == SHARDS | SMALL | {"a.txt": b"a"}
    assert contents(hub, "ada/open") == {"a.txt": b"a"}
    with Helper(hub, home, STRANGER) as helper:
        push(helper, model, repo="ada/open", create_pr=True)
        done = helper.done("commit", message="a gift")
    assert done["pull_request"] == f"{hub.url}/ada/open/discussions/1" and repo.pull_requests() == ["refs/pr/1"]
    with Helper(hub, home) as helper:
        (model / "config.json").write_bytes(b'{"more": 1}')
        push(helper, model, repo="ada/open", names=["config.json"], revision="refs/pr/1")
        helper.done("commit", message="to the same request")
    assert contents(hub, "ada/open", "refs/pr/1")["config.json"] == b'{"more": 1}'


def test_repository_without_organization(hub: TestHub, home: Path, model: Path) -> None:
    with Helper(hub, home) as helper:
        helper.done("hello")
        assert helper.done("create", repo="new")["repo"] == "ada/new"
        helper.done("store", path="config.json", file=str(model / "config.json"))
        assert helper.done("commit", message="all")["repo"] == "ada/new"


def test_shards_of_an_older_push_go(hub: TestHub, home: Path, model: Path) -> None:
    old = {"model.safetensors": b"old", "model-00001-of-00009.safetensors": b"old", "other.safetensors": b"mine"}
    hub.state.add(Repo("ada/new"), old)
    with Helper(hub, home) as helper:
        push(helper, model, names=["config.json"])
        helper.done("commit", message="no weights")
    assert contents(hub) == old | {"config.json": b"{}"}
    with Helper(hub, home) as helper:
        push(helper, model)
        helper.done("commit", message="weights")
    assert contents(hub) == SHARDS | SMALL | {"other.safetensors": b"mine"}


OLD = {
    # new files -> of these old ones, those that they replace
    ("model.safetensors",): {"model-00001-of-00002.safetensors", "model.safetensors.index.json",
                             "pytorch_model.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"},
    ("pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"):
        {"model-00001-of-00002.safetensors", "model.safetensors.index.json",
         "pytorch_model.bin", "pytorch_model-00002-of-00002.bin"},
    ("model.fp16.safetensors",): {"model.fp16-00001-of-00002.safetensors", "model.safetensors.index.fp16.json",
                                  "pytorch_model.fp16.bin", "pytorch_model.bin.index.fp16.json"},
    ("adapter_model.bin",): {"adapter_model.safetensors"},
    ("config.json",): set(),
}  # fmt: skip
OTHERS = {"model.int-8.safetensors", "sub/model.safetensors", "other.safetensors", "tf_model.h5", "model.json",
          "pytorch_model.txt", "training_args.bin"}  # fmt: skip


@pytest.mark.parametrize("new", OLD, ids=lambda new: new[0])
def test_what_a_push_replaces_goes(hub: TestHub, home: Path, model: Path, new: tuple[str, ...]) -> None:
    """Of the same variant, in either format: transformers and PEFT would load old safetensors and not the new .bin."""
    old = set().union(*OLD.values(), OTHERS)
    hub.state.add(Repo("ada/new"), {name: b"old" for name in old})
    with Helper(hub, home) as helper:
        for name in new:
            (model / name).write_bytes(b"new")
        push(helper, model, names=list(new))
        helper.done("commit", message="all")
    wanted = {name: b"old" for name in old - OLD[new]} | {name: b"new" for name in new}
    assert contents(hub) == wanted


CARDS = [
    # the Hub's card, ours, tags -> what the Hub has then
    (None, OWN_CARD, [], OWN_CARD),
    (None, OWN_CARD, ["x"], OWN_CARD.replace("- lora\n", "- lora\n- x\n")),
    (None, None, ["x"], "---\ntags:\n- x\n---\n"),
    ("---\nlicense: mit # why\ntags: [b]\n---\n# Old\r\n", None, [], "---\nlicense: mit # why\ntags: [b]\n---\n# Old\r\n"),
    ("# No head\n", None, ["x"], "---\ntags:\n- x\n---\n# No head\n"),
    ("---\nlicense: mit\ntags:\n- b\nbase_model: old/base\n---\n# Old\n", OWN_CARD, ["x", "b"],
     "---\nlicense: mit\ntags:\n- b\n- lora\n- x\nbase_model: team/base\nlibrary_name: transformers\n"
     "base_model_relation: finetune\n---\n# Old\n"),
    ("---\nlicense: [\n---\n# Old\n", OWN_CARD, ["x"], "---\nlicense: [\n---\n# Old\n"),
]


@pytest.mark.parametrize(("existing", "own", "tags", "then"), CARDS)
def test_model_card(
    hub: TestHub, home: Path, model: Path, existing: str | None, own: str | None, tags: list[str], then: str
) -> None:
    if existing is not None:
        hub.state.add(Repo("ada/new"), {"README.md": existing.encode()})
    names = ["config.json"]
    if own is not None:
        (model / "README.md").write_text(own)
        names.append("README.md")
    with Helper(hub, home) as helper:
        push(helper, model, names=names)
        helper.done("commit", message="all", tags=tags)
        unreadable = ["the model card of the repository stays as it is, because its metadata cannot be read"]
        assert helper.notices() == (unreadable if existing and "[\n" in existing else [])
    assert contents(hub)["README.md"].decode() == then

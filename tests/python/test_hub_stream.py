"""`lorafold merge --push-to-hub`, with and without a local output: shards go while others are made."""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_help import STRANGER, TOKEN, client, environment, running_hub
from hub_program import Program, Watch, children_of, eventually, files_of, interrupt

from hub import TestHub

SHARDS = 6
MAKE = """
import json, pathlib, random, struct, sys
root = pathlib.Path(sys.argv[1])
hidden, rank, layers = 256, 2, int(sys.argv[2])

def write(path, tensors):
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)

names = [f"model.layers.{i}.self_attn.q_proj" for i in range(layers)]
(root / "base").mkdir()
(root / "adapter").mkdir()
rng = random.Random(1)
bf16 = lambda: bytes(b for _ in range(hidden * hidden) for b in (rng.randrange(256), 0x3c + rng.randrange(3)))
write(root / "base/model.safetensors", {f"{n}.weight": ("BF16", [hidden, hidden], bf16()) for n in names})
(root / "base/config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": hidden}))
(root / "base/tokenizer.json").write_text("{}")
f32 = lambda n: struct.pack(f"<{n}f", *[0.25] * n)
write(root / "adapter/adapter_model.safetensors", {f"base_model.model.{n}.lora_{k}.weight": ("F32", shape, f32(hidden * rank))
      for n in names for k, shape in (("A", [rank, hidden]), ("B", [hidden, rank]))})
config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "x"}
(root / "adapter/adapter_config.json").write_text(json.dumps(config))
"""
PUSH = ("merge", "base", "-a", "adapter", "--max-shard-size", "150KB", "--push-to-hub")


@pytest.fixture
def hub() -> Iterator[TestHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def program(hub: TestHub, tmp_path: Path) -> Program:
    """With a base that gives six shards, and `plain`, merged without a push."""
    program = Program(hub, tmp_path)
    client(MAKE, tmp_path, SHARDS, env=environment(hub, tmp_path))
    hub.requests.clear()  # the genuine client has asked something of its own
    program.ok(*PUSH[:-1], "-o", "plain")
    assert len(shards(tmp_path / "plain")) == SHARDS
    return program


def shards(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def contents(hub: TestHub, repo: str, reference: str = "main") -> dict[str, bytes]:
    return {path: hub.state.content(entry) for path, entry in hub.state.repos[repo].head(reference).files.items()}


def left_over(program: Program) -> list[str]:
    """What a run has left beside what it was given."""
    known = {"base", "adapter", "plain", "home", "bin"}
    return sorted(path.name for path in program.root.iterdir() if path.name not in known and not path.name.startswith("."))


def assert_is_plain(hub: TestHub, program: Program, repo: str, reference: str = "main") -> None:
    pushed, plain = contents(hub, repo, reference), files_of(program.root / "plain")
    for files in (pushed, plain):
        files.pop("README.md")
    assert pushed == plain


def test_with_a_local_output(hub: TestHub, program: Program) -> None:
    with Watch():
        done = program.ok(*PUSH, "ada/new", "-o", "out", "--private", "--tag", "x", "--commit-message", "all of it")
    assert files_of(program.root / "out") == files_of(program.root / "plain")
    assert_is_plain(hub, program, "ada/new")
    repo = hub.state.repos["ada/new"]
    assert repo.private and repo.head().message == "all of it" and hub.count("POST", "/commit/") == 1
    assert f"commit    {hub.url}/ada/new/commit/{repo.head().oid}" in done.stdout
    assert "push      ada/new" in done.stderr and b"- x\n" in contents(hub, "ada/new")["README.md"]
    # Into a directory that is there and empty, whose files are moved one by one; and over one that is not.
    (program.root / "empty").mkdir()
    program.ok(*PUSH, "ada/two", "-o", "empty")
    program.ok(*PUSH, "ada/three", "-o", "out", "--overwrite")
    for name in ("empty", "out"):
        assert files_of(program.root / name) == files_of(program.root / "plain")
    assert_is_plain(hub, program, "ada/two")
    assert_is_plain(hub, program, "ada/three")
    assert left_over(program) == ["empty", "out"]


def test_shards_go_while_others_are_made(hub: TestHub, program: Program) -> None:
    """Never are more than two there, the first is sent before the last is made, and nothing is left."""
    held = threading.Event()
    fault = hub.fail("PUT", "/storage/", hold=held)
    process = program.start(*PUSH, "ada/new", "--no-local")
    assert fault.reached.wait(60)
    work = program.root / "lorafold-new.partial"
    eventually(lambda: len(hub.state.uploads) == 1, "the second shard is not sent")
    # One is held, so one more may be there, but the run goes on with the others only as each leaves.
    assert len(shards(work)) <= 2
    eventually(lambda: len(hub.state.uploads) == SHARDS - 1, "a slow shard stops the others")
    assert len(shards(work)) <= 2
    held.set()
    done = program.finish(process)
    assert done.status == 0, done
    assert_is_plain(hub, program, "ada/new")
    assert left_over(program) == [] and "no output is kept here" in done.stderr
    assert done.stdout.startswith("wrote     ada/new")


def test_the_network_is_the_brake(hub: TestHub, program: Program) -> None:
    """While two shards are held nothing more is made; an interrupt ends that."""
    faults = [hub.fail("PUT", "/storage/", hold=threading.Event()) for _ in range(2)]
    process = program.start(*PUSH, "ada/new", "--no-local")
    for fault in faults:
        assert fault.reached.wait(60)
    work = program.root / "lorafold-new.partial"
    assert len(shards(work)) == 2
    done = interrupt(program, process)
    assert done.status == 130 and len(hub.state.uploads) == 0
    assert left_over(program) == [] and not contents(hub, "ada/new")
    for fault in faults:
        fault.hold.set()
    program.ok(*PUSH, "ada/new", "--no-local")
    assert_is_plain(hub, program, "ada/new")


@pytest.mark.parametrize("more", [("--no-local",), ("-o", "out")])
def test_killed_and_again(hub: TestHub, program: Program, more: tuple) -> None:
    """What the Hub has is not sent again."""
    eventually_held = hub.fail("PUT", "/storage/", hold=threading.Event())
    process = program.start(*PUSH, "ada/new", *more)
    assert eventually_held.reached.wait(60)
    eventually(lambda: len(hub.state.uploads) == SHARDS - 1, "the others are not sent")
    interrupt(program, process, signal.SIGKILL)
    eventually_held.hold.set()
    eventually(lambda: len(set(hub.state.uploads)) >= SHARDS - 1, "uploads")
    before = len(hub.state.uploads)
    again = more if more[0] == "--no-local" or not (program.root / "out").exists() else (*more, "--overwrite")
    program.ok(*PUSH, "ada/new", *again)
    assert len(hub.state.uploads) - before <= 1
    assert_is_plain(hub, program, "ada/new")


def test_the_hub_says_no_before_the_work(hub: TestHub, program: Program) -> None:
    for token, words in ((STRANGER, "may not do this to"), ("hf_wrongwrongwrong", "does not accept the token"),
                         (None, "set HF_TOKEN")):
        for more in (("--no-local",), ("-o", "out")):
            assert words in program.refused(1, *PUSH, "ada/new", *more, token=token)
    assert left_over(program) == [] and not hub.state.uploads
    assert "'no//name' is not the name" in program.refused(2, *PUSH, "no//name", "--no-local")
    assert "offline (--offline), and a push" in program.refused(2, *PUSH, "ada/new", "--no-local", "--offline")
    program.helper.unlink()
    assert "install it with" in program.refused(2, *PUSH, "ada/new", "--no-local")


def test_a_push_that_fails_leaves_the_output(hub: TestHub, program: Program) -> None:
    hub.fail("POST", "/commit/", times=99, status=403)
    asked = ("--revision", "v1", "--commit-message", "all of it", "--tag", "x", "--dataset", "ada/data")
    sentence = program.refused(1, *PUSH, "ada/new", "-o", "out dir", *asked)
    assert "'out dir' is complete, but it was not pushed: " in sentence
    command = "lorafold push 'out dir' ada/new --revision v1 --commit-message 'all of it' --tag x --dataset ada/data"
    assert sentence.endswith(f"push it with: {command}")
    assert files_of(program.root / "out dir") == files_of(program.root / "plain")
    hub.faults.clear()
    uploads = len(hub.state.uploads)
    program.ok("push", "out dir", "ada/new", "--revision", "v1")
    assert len(hub.state.uploads) == uploads
    assert_is_plain(hub, program, "ada/new", "v1")
    hub.fail("POST", "/commit/", times=99, status=403)
    sentence = program.refused(1, *PUSH, "ada/new", "--no-local")
    assert "the same command sends the rest" in sentence and left_over(program) == ["out dir"]


@pytest.mark.parametrize("more", [("--no-local",), ("-o", "out")])
def test_the_helper_is_killed_among_shards(hub: TestHub, program: Program, more: tuple) -> None:
    fault = hub.fail("PUT", "/storage/", hold=threading.Event())
    process = program.start(*PUSH, "ada/new", *more)
    assert fault.reached.wait(60)
    for pid in children_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    done = program.finish(process)
    fault.hold.set()
    assert done.status == 1 and "ended in the middle: signal 9" in done.stderr
    if more[0] == "-o":
        assert files_of(program.root / "out") == files_of(program.root / "plain")
    else:
        assert left_over(program) == []


def test_faults_on_the_way(hub: TestHub, program: Program) -> None:
    hub.fail("PUT", "/storage/", times=2, cut=5000)
    hub.fail("POST", "/preupload/", status=503)
    hub.fail("POST", "/commit/", status=504, applied=True)
    program.ok(*PUSH, "ada/new", "--no-local")
    assert_is_plain(hub, program, "ada/new")
    assert len([one for one in hub.state.repos["ada/new"].commits.values() if one.files]) == 1


def test_what_is_not_what_was_written(hub: TestHub, program: Program) -> None:
    """A shard that changes between its writing and its sending is found before anything is committed."""
    fault = hub.fail("PUT", "/storage/", hold=threading.Event())
    other = hub.fail("PUT", "/storage/", hold=threading.Event())
    third = hub.fail("PUT", "/storage/", hold=threading.Event())
    process = program.start(*PUSH, "ada/new", "-o", "out")
    for one in (fault, other, third):
        assert one.reached.wait(60)
    # Three are on their way, so another one waits: it has been published by now or will be.
    eventually(lambda: (program.root / "out" / "lorafold.json").exists(), "the output is not published")
    sent = " ".join(hub.requests)
    waiting = [path.name for path in shards(program.root / "out")
               if hashlib.sha256(path.read_bytes()).hexdigest() not in sent]
    assert len(waiting) == SHARDS - 3
    last = waiting[0]
    with open(program.root / "out" / last, "r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    for one in (fault, other, third):
        one.hold.set()
    done = program.finish(process)
    assert done.status == 5 and f"'{last}' is not what was written" in done.stderr, done
    assert "'out' is written, but not as it was computed" in done.stderr
    assert hub.count("POST", "/commit/") == 0


def test_an_adapter(hub: TestHub, program: Program) -> None:
    program.ok("merge", "base", "-a", "adapter", "--save-method", "lora", "--push-to-hub", "ada/lora", "--no-local")
    files = contents(hub, "ada/lora")
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", "lorafold.json"} <= set(files)
    assert "model.safetensors" not in files and left_over(program) == []


def test_a_pull_request_and_json(hub: TestHub, program: Program) -> None:
    done = program.ok(*PUSH, "ada/new", "--no-local", "--create-pr", "--json", "-o", "work")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["type"] == "report" and lines[-1]["pull_request"].endswith("/discussions/1")
    assert lines[-1]["repo"] == "ada/new" and lines[-1]["files_pushed"] == len(files_of(program.root / "plain"))
    assert_is_plain(hub, program, "ada/new", "refs/pr/1")
    assert "upload" in [line["limit"] for line in lines if line["type"] == "progress"]
    assert left_over(program) == []


def test_options_that_do_not_go_together(hub: TestHub, program: Program) -> None:
    merge = ("merge", "base", "-a", "adapter")
    assert "'--no-local' is for a push" in program.refused(2, *merge, "-o", "out", "--no-local")
    assert "'--tag' is for a push" in program.refused(2, *merge, "-o", "out", "--tag", "x")
    assert "add -o OUT" in program.refused(2, *merge, "--push-to-hub", "ada/new")
    assert "one output" in program.refused(2, *merge, "--each", "-o", "out", "--push-to-hub", "ada/new")
    assert not hub.requests
    plan = program.ok("plan", "base", "-a", "adapter", "--push-to-hub", "ada/new", "--no-local")
    assert "push      ada/new, and no output is kept here" in plan.stdout and not hub.requests

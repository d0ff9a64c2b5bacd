"""Bases, adapters and tokenizers by their names on the Hub: the program, the helper and the test hub together."""

import json
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_help import STRANGER, TOKEN, client, environment, running_hub
from hub_program import LORAFOLD, Program, Watch, eventually, files_of, interrupt, make_model

from hub import Repo, TestHub

OTHERS = {"pytorch_model.bin": b"p", "original/consolidated.00.pth": b"o", "model-q4.gguf": b"g", "onnx/model.onnx": b"x"}
TOKENIZER = {"tokenizer.json": b"{}", "tokenizer_config.json": b'{"x": 1}'}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[TestHub]:
    """With ada/base and ada/adapter, which names it."""
    make_model(tmp_path / "local" / "base", tmp_path / "local" / "adapter")
    config = tmp_path / "local" / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "ada/base"}))
    with running_hub() as hub:
        hub.state.add(Repo("ada/base"), files_of(tmp_path / "local" / "base") | TOKENIZER | OTHERS)
        hub.state.add(Repo("ada/adapter"), files_of(tmp_path / "local" / "adapter"))
        yield hub


@pytest.fixture
def program(hub: TestHub, tmp_path: Path) -> Program:
    return Program(hub, tmp_path)


def cache_local(program: Program, repo: str, files: dict[str, bytes], revision: str = "1" * 40) -> Path:
    """As another tool may have left it."""
    directory = program.home / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot = directory / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (directory / "refs").mkdir()
    (directory / "refs" / "main").write_text(revision)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    return snapshot


def test_everything_by_name(hub: TestHub, program: Program) -> None:
    hub.state.repos["ada/base"].private = True
    with Watch():
        done = program.ok("merge", "-a", "ada/adapter", "-o", "out", "--tokenizer", "ada/base", "-v")
    out = program.root / "out"
    assert "note: fetching 'ada/base' from the Hub into the Hugging Face cache" in done.stderr
    assert f"Hub helper: '{program.helper}' 0.1.0, huggingface_hub" in done.stderr and "with a token" in done.stderr
    assert (out / "tokenizer_config.json").read_bytes() == TOKENIZER["tokenizer_config.json"]
    manifest = json.loads((out / "lorafold.json").read_text())
    assert manifest["base"]["name"] == "ada/base"
    assert manifest["base"]["revision"] == hub.state.repos["ada/base"].head().oid
    assert set(files_of(program.snapshot("ada/base"))) == {"config.json", "model.safetensors", *TOKENIZER}
    seen = b"".join(path.read_bytes() for path in [*out.rglob("*"), *program.home.rglob("*")] if path.is_file())
    assert TOKEN.encode() not in seen
    # The same from paths, and from the cache without a question to the Hub.
    program.ok("merge", program.root / "local/base", "-a", program.root / "local/adapter", "-o", "local-out")
    weights = (out / "model.safetensors").read_bytes()
    assert weights == (program.root / "local-out/model.safetensors").read_bytes()
    before = len(hub.requests)
    program.write_helper("exit 9")
    program.ok("merge", "-a", "ada/adapter", "-o", "again", token=None)
    assert len(hub.requests) == before
    # What was fetched is what the genuine client finds without the Hub.
    env = environment(hub, program.home, HF_HUB_OFFLINE="1")
    found = client("print(snapshot_download('ada/base', local_files_only=True, allow_patterns=['*.safetensors', '*.json']))", env=env)
    assert Path(found) == program.snapshot("ada/base")


def test_places_and_progress(hub: TestHub, program: Program, tmp_path: Path) -> None:
    """HF_HUB_CACHE says where; --json has progress of the download, then of the merge."""
    elsewhere = tmp_path / "elsewhere"
    done = program.ok("merge", "ada/base@main", "-a", "ada/adapter", "-o", "out", "--json", HF_HUB_CACHE=str(elsewhere))
    assert (elsewhere / "models--ada--base").is_dir() and not (program.home / "hub").exists()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    limits = [line["limit"] for line in lines if line["type"] == "progress"]
    assert limits[0] == "download" and limits[-1] != "download"
    last = [line for line in lines if line["type"] == "progress" and line["limit"] == "download"][-1]
    assert last["file"] == "ada/base@main" and last["bytes_done"] == last["bytes_total"] > 8000


def test_fetch(hub: TestHub, program: Program) -> None:
    directory = program.ok("fetch", "ada/base").stdout.rstrip("\n")
    assert Path(directory) == program.snapshot("ada/base")
    gets = hub.count("GET", "/")
    assert json.loads(program.ok("fetch", "ada/base", "--json").stdout) == {"type": "fetch", "directory": directory}
    assert hub.count("GET", "/") == gets
    assert "type" in program.ok("inspect", "ada/base").stdout


def test_a_part_in_the_cache(hub: TestHub, program: Program) -> None:
    """A tokenizer that was loaded alone, a shard that is missing, a link to what is no more there."""
    snapshot = cache_local(program, "ada/base", {"config.json": b"{}"} | TOKENIZER)
    sentence = program.refused(2, "merge", "-a", "ada/adapter", "-o", "out", "--offline")
    assert "'ada/adapter' is not in the Hugging Face cache" in sentence
    program.ok("fetch", "ada/adapter")
    sentence = program.refused(2, "merge", "-a", "ada/adapter", "-o", "out", HF_HUB_OFFLINE="1")
    assert "offline (HF_HUB_OFFLINE" in sentence and "not with all of its weights" in sentence
    assert "lorafold fetch ada/base" in sentence
    (snapshot / "model.safetensors").symlink_to("../../blobs/gone")
    assert "not with all" in program.refused(2, "merge", "-a", "ada/adapter", "-o", "out", "--offline")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").write_bytes(b"whole")
    index = {"weight_map": {"x": "model.safetensors", "y": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "not with all" in program.refused(2, "merge", "-a", "ada/adapter", "-o", "out", "--offline")
    program.ok("merge", "-a", "ada/adapter", "-o", "out")


def test_pickles_in_the_cache(hub: TestHub, program: Program) -> None:
    """They are no reason to say that something is missing when nothing may be fetched."""
    cache_local(program, "ada/old", {"config.json": b"{}", "pytorch_model.bin": b"p"})
    sentence = program.refused(3, "merge", "ada/old", "-a", program.root / "local/adapter", "-o", "out", "--offline")
    assert "pytorch_model.bin" in sentence


def test_plans_fetch_adapters_only(hub: TestHub, program: Program) -> None:
    for words in (["plan"], ["merge", "-n", "-o", "out"]):
        sentence = program.refused(2, *words, "-a", "ada/adapter")
        assert "lorafold fetch ada/base" in sentence
    assert program.snapshot("ada/adapter") and not (program.home / "hub/models--ada--base").exists()
    program.ok("fetch", "ada/base")
    assert "ada/base" in program.ok("plan", "-a", "ada/adapter").stdout


def test_an_adapter_alone_needs_no_base(hub: TestHub, program: Program) -> None:
    done = program.ok("merge", "-a", "ada/adapter", "-o", "out", "--save-method", "lora")
    assert "is not checked against its base" in done.stderr
    assert not (program.home / "hub/models--ada--base").exists()


def test_a_tokenizer_comes_without_weights(hub: TestHub, program: Program) -> None:
    local = program.root / "local"
    program.ok("merge", local / "base", "-a", local / "adapter", "-o", "out", "--tokenizer", "ada/base")
    assert set(files_of(program.snapshot("ada/base"))) == {"config.json", *TOKENIZER}
    hub.state.add(Repo("ada/bare"), {"model.safetensors": b"w"})
    sentence = program.refused(1, "merge", local / "base", "-a", local / "adapter", "-o", "no", "--tokenizer", "ada/bare")
    assert "'ada/bare' holds no tokenizer" in sentence


def test_the_original_of_a_quantised_base(hub: TestHub, program: Program) -> None:
    """With --base-numerics original it is fetched, and the quantised one is not."""
    local = program.root / "local"
    hub.state.add(Repo("ada/base-bnb-4bit"), {"model.safetensors": b"quantised", "config.json": b"{}"})
    config = local / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "ada/base-bnb-4bit"}))
    program.ok("merge", "-a", local / "adapter", "-o", "out", "--base-numerics", "original")
    assert json.loads((program.root / "out/lorafold.json").read_text())["base"]["name"] == "ada/base"
    assert not (program.home / "hub/models--ada--base-bnb-4bit").exists()
    shutil.rmtree(program.root / "out")
    shutil.rmtree(program.home)
    program.ok("merge", local / "base", "-a", local / "adapter", "-o", "out", "--original-base", "ada/base")
    assert program.snapshot("ada/base")


FAILURES = [
    # repository, status, token, words
    ("ada/none", 1, TOKEN, "'ada/none' is not on the Hub, or is private and the token from HF_TOKEN may not see it"),
    ("ada/none", 1, None, "set HF_TOKEN, run 'hf auth login'"),
    ("ada/private", 1, STRANGER, "is private and the token from HF_TOKEN may not see it"),
    ("ada/gated", 1, STRANGER, "'ada/gated' is gated: accept its terms at http"),
    ("ada/base@v9", 1, TOKEN, "'ada/base' has no revision 'v9'"),
    ("ada/base", 1, "hf_wrongwrongwrong", "the Hub does not accept the token from HF_TOKEN"),
    ("ada/pickle", 1, TOKEN, "'ada/pickle' holds no safetensors weights and no adapter"),
]


@pytest.mark.parametrize(("repo", "status", "token", "words"), FAILURES)
def test_one_sentence_each(hub: TestHub, program: Program, repo: str, status: int, token: str | None, words: str) -> None:
    hub.state.add(Repo("ada/private", private=True), {"model.safetensors": b"w"})
    hub.state.add(Repo("ada/gated", gated=True), {"model.safetensors": b"w"})
    hub.state.add(Repo("ada/pickle"), {"pytorch_model.bin": b"p"})
    sentence = program.refused(status, "merge", repo, "-a", program.root / "local/adapter", "-o", "out", token=token)
    assert words in sentence and f"base '{repo}' is no path here: " in sentence
    assert not (program.root / "out").exists()


def test_faults_on_the_way(hub: TestHub, program: Program) -> None:
    hub.fail("GET", "/storage/", cut=5000)
    hub.fail("GET", "/api/models/ada/base", status=429, headers={"Retry-After": "5"})
    hub.fail("GET", "/tree/", status=503)
    done = program.ok("fetch", "ada/base")
    assert "the Hub limits requests; waiting 6 s as it asks" in done.stderr
    hub.fail("GET", "/api/models/ada/adapter", times=9, status=500)
    assert "failed (status 500); try again later" in program.refused(1, "fetch", "ada/adapter")
    sentence = program.refused(1, "fetch", "ada/adapter", HF_ENDPOINT="http://127.0.0.1:9")
    assert "the Hub at http://127.0.0.1:9 cannot be reached" in sentence


def test_no_space_in_the_cache(hub: TestHub, program: Program) -> None:
    """The helper's file system is full before the first byte, as it sees it."""
    lie = "import shutil, runpy; shutil.disk_usage = lambda path: type('U', (), {'free': 10})(); "
    program.write_helper(f'exec "{sys.executable}" -c "{lie}runpy.run_module(\'lorafold_hub\', run_name=\'__main__\')"')
    assert "no space left for" in program.refused(1, "fetch", "ada/base")


def test_the_helper(hub: TestHub, program: Program) -> None:
    """Missing, killed, of another version, not able to run."""
    program.write_helper("kill -9 $$")
    assert "ended in the middle: signal 9" in program.refused(1, "fetch", "ada/base")
    program.write_helper("read -r x; echo '{\"id\": 1, \"done\": {\"protocol\": 9}}'; read -r x")
    assert "speaks protocol 9 and not 1" in program.refused(2, "fetch", "ada/base")
    program.helper.unlink()
    assert "install it with: pipx install 'lorafold[hub]'" in program.refused(2, "fetch", "ada/base")
    # Beside the program, before all others.
    copy = program.root / "bin" / "lorafold"
    shutil.copy(LORAFOLD, copy)
    program.write_helper(f'exec "{sys.executable}" -m lorafold_hub')
    env = environment(hub, program.home, PATH="/nowhere")
    words = [str(copy), "fetch", "ada/base", "-v"]
    code = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    client(code, *words, env=env)
    assert program.snapshot("ada/base")


def test_a_token_file(hub: TestHub, program: Program, tmp_path: Path) -> None:
    hub.state.repos["ada/base"].private = True
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    with Watch():
        program.ok("fetch", "ada/base", "--token-file", file, token=STRANGER)
    shutil.rmtree(program.home)
    assert "token file '/no/such': No such file" in program.refused(2, "fetch", "ada/base", "--token-file", "/no/such")
    (program.home).mkdir(exist_ok=True)
    (program.home / "token").write_text(TOKEN)  # where the tools keep it
    program.ok("fetch", "ada/base", token=None)


@pytest.mark.parametrize("words", [("fetch", "ada/base"), ("merge", "-a", "ada/adapter", "-o", "out")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(hub: TestHub, program: Program, words: tuple, number: int) -> None:
    held = threading.Event()
    fault = hub.fail("GET", "/storage/", hold=held)
    process = program.start(*words)
    assert fault.reached.wait(60)
    done = interrupt(program, process, number)
    assert done.status == 128 + number
    held.set()
    program.ok(*words)


def test_killed(hub: TestHub, program: Program) -> None:
    """The helper ends too, and another run takes up what is there."""
    fault = hub.fail("GET", "/storage/", hold=threading.Event())
    process = program.start("fetch", "ada/base")
    assert fault.reached.wait(60)
    interrupt(program, process, signal.SIGKILL)
    fault.hold.set()
    blobs = program.home / "hub/models--ada--base/blobs"
    whole = len([path for path in blobs.iterdir() if path.suffix != ".incomplete"])
    gets = hub.count("GET", "/resolve/")
    program.ok("fetch", "ada/base")
    assert hub.count("GET", "/resolve/") - gets <= 4 - whole


PLANNING = [("merge", "-a", "ada/adapter", "-o", "out"), ("plan", "-a", "ada/adapter"),
            ("merge", "-a", "ada/adapter", "-a", "ada/other", "--each", "-o", "out")]  # fmt: skip


@pytest.mark.parametrize("words", [("fetch", "ada/base"), *PLANNING], ids=" ".join)
def test_a_stopped_helper_is_killed(hub: TestHub, program: Program, words: tuple) -> None:
    """One that hears nothing at all does not outlive a Ctrl-C that is waited for."""
    program.write_helper("read -r x; echo '{\"id\": 1, \"done\": {\"protocol\": 1}}'; trap '' TERM; : > started; sleep 300")
    process = program.start(*words)
    eventually(lambda: (program.root / "started").exists(), "the helper does not start")
    assert interrupt(program, process).status == 130
    assert not (program.root / "out").exists()

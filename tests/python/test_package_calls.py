"""merge, plan, verify and inspect of the Python package: results, errors, callbacks."""

import logging
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

import package_help as help  # first: it says where the package is
import lorafold
import models
import shards
from conftest import Run
from large import make_large


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pair")
    base = help.make_base(directory / "base")
    help.trained(base).save_pretrained(directory / "adapter")
    return directory


@pytest.fixture
def lorafold_run(request: pytest.FixtureRequest) -> Run:
    """The program; the fixture's own name is that of the package here."""
    return request.getfixturevalue("lorafold")


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_merge_is_that_of_the_program(pair: Path, tmp_path: Path, lorafold_run: Run):
    base, adapter = pair / "base", pair / "adapter"
    report = lorafold.merge(base, [(adapter, 0.5), (str(adapter), 2)], tmp_path / "ours", max_shard_size="60KB", dtype="bf16")
    options = ["--max-shard-size", "60KB", "--dtype", "bf16"]
    lorafold_run("merge", base, "-a", f"{adapter}:0.5", "-a", f"{adapter}:2", "-o", tmp_path / "theirs", *options)
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")
    assert report.shards > 1 and report.output == str(tmp_path / "ours") and report.base == "base"
    assert report["bytes_written"] == report.bytes_written > 0 and report.tensors_folded == 14
    assert "wrote" in str(report)
    assert lorafold.verify(tmp_path / "ours").file_count == len(files_of(tmp_path / "ours")) - 2


def test_adapter_is_taken_in_every_form(pair: Path, tmp_path: Path):
    adapter = pair / "adapter"
    forms = [adapter, str(adapter), (adapter, 1.0), [adapter], [(str(adapter), 1)], (one for one in [adapter])]
    outputs = []
    for number, form in enumerate(forms):
        lorafold.merge(pair / "base", form, tmp_path / str(number))
        outputs.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert len(set(outputs)) == 1


def test_plan_writes_nothing_and_reads_like_the_json(pair: Path, tmp_path: Path):
    plan = lorafold.plan(pair / "base", pair / "adapter", tmp_path / "out")
    assert plan.tensors_folded == plan["tensors_folded"] == 14
    assert dict(plan)["type"] == "plan" and len(plan) == len(list(plan))
    assert plan.memory_least_bytes <= plan.memory_budget_bytes == 128 * 2**20
    assert str(plan).startswith("base ")
    assert not list(tmp_path.iterdir())


def test_base_may_be_left_out(pair: Path, tmp_path: Path):
    lorafold.merge(None, pair / "adapter", tmp_path / "out")  # PEFT wrote the path of the base
    assert (tmp_path / "out" / "config.json").exists()


def test_inspect(pair: Path, tmp_path: Path):
    about = lorafold.inspect(pair / "adapter")
    assert about["type"] == "adapter" and about["rank"] == 4 and "all" not in about
    every = lorafold.inspect(pair / "base", all_tensors=True)["all"]
    assert {one["name"] for one in every} == set(models.load_tensors(pair / "base"))
    with pytest.raises(lorafold.UsageError):
        lorafold.inspect(tmp_path / "nothing")


def truncate(directory: Path, name: str) -> Path:
    path = directory / name
    path.write_bytes(path.read_bytes()[:-8])
    return directory


def test_one_class_per_exit_code(pair: Path, tmp_path: Path):
    base, adapter, out = pair / "base", pair / "adapter", tmp_path / "out"
    other = help.make_base(tmp_path / "other", family="gpt_neox")
    cut = tmp_path / "cut"
    cut.mkdir()
    for path in base.iterdir():
        (cut / path.name).write_bytes(path.read_bytes())
    truncate(cut, "model.safetensors")
    with pytest.raises(lorafold.UsageError) as usage:
        lorafold.merge(base, tmp_path / "none", out)
    with pytest.raises(lorafold.FormatError) as damaged:
        lorafold.merge(cut, adapter, out)
    with pytest.raises(lorafold.MismatchError) as mismatch:
        lorafold.merge(other, adapter, out)
    with pytest.raises(lorafold.MachineError) as machine:
        lorafold.merge(base, adapter, "/proc/out")
    assert not out.exists()
    lorafold.merge(base, adapter, out)
    path = out / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(lorafold.DifferenceError) as different:
        lorafold.verify(out)
    raised = [machine, usage, damaged, mismatch, different]
    assert [one.value.exit_code for one in raised] == [1, 2, 3, 4, 5]
    assert isinstance(usage.value, ValueError)
    assert all(isinstance(one.value, lorafold.LorafoldError) and str(one.value) for one in raised)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "int8"},
        {"save_method": "merged"},
        {"tied": "both"},
        {"lora_b_layout": "x"},
        {"max_shard_size": "5 apples"},
        {"max_shard_size": 0},
        {"memory": -1},
        {"memory": "1MiB"},
        {"threads": -1},
        {"tokenizer": "/nowhere"},
        {"kernels": "abacus"},
    ],
    ids=str,
)
def test_bad_values_are_refused(options: dict, pair: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="."):
        lorafold.merge(pair / "base", pair / "adapter", tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_unknown_options_are_a_type_error(pair: Path):
    with pytest.raises(TypeError, match="quick"):
        lorafold.plan(pair / "base", pair / "adapter", quick=True)


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"save_method": "lora"}, ["--save-method", "lora"]),
        ({"save_method": "same"}, ["--save-method", "same"]),
        ({"save_method": "merged_4bit"}, ["--save-method", "merged_4bit"]),
        (
            {"save_method": "merged_4bit", "skip": ["q_proj", "up_proj"], "quant_type": "fp4", "single_quant": True},
            ["--save-method", "merged_4bit", "--skip", "q_proj", "--skip", "up_proj", "--quant-type", "fp4", "--no-double-quant"],
        ),
    ],
    ids=["lora", "same", "4bit", "4bit_with_options"],
)
def test_save_methods_are_those_of_the_program(
    asked: dict, options: list[str], pair: Path, tmp_path: Path, lorafold_run: Run
):
    lorafold.merge(pair / "base", pair / "adapter", tmp_path / "ours", **asked)
    lorafold_run("merge", pair / "base", "-a", pair / "adapter", "-o", tmp_path / "theirs", *options)
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")


def test_offline_asks_nothing(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(lorafold.UsageError, match="offline"):
        lorafold.merge("nobody/nothing", pair / "adapter", tmp_path / "out", offline=True)


def test_progress_and_messages_come_on_the_calling_thread(pair: Path, tmp_path: Path):
    seen: list[tuple[int, object]] = []
    lorafold.merge(
        pair / "base",
        pair / "adapter",
        tmp_path / "out",
        progress=lambda progress: seen.append((threading.get_ident(), progress)),
        message=lambda level, sentence: seen.append((threading.get_ident(), level)),
    )
    assert {thread for thread, _ in seen} == {threading.get_ident()}
    last = [one for _, one in seen if isinstance(one, lorafold.Progress)][-1]
    assert last.bytes_done == last.bytes_total == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert last.limit in ("read", "compute", "write") and last.file == "model.safetensors"


def test_messages_are_logged(pair: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    models.make_adapter(pair / "base", tmp_path / "named", models.torch.float32, seed=1, **help.LORA)
    (tmp_path / "tiny" / "base").mkdir(parents=True)  # what that adapter names, and is not what is given
    with caplog.at_level(logging.DEBUG, "lorafold"), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        lorafold.plan(pair / "base", "named")
    assert {one.name for one in caplog.records} == {"lorafold"}
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1 and "was made for 'tiny/base'" in warnings[0]


class Enough(Exception):
    pass


@pytest.mark.parametrize("error", [Enough, lorafold.Cancelled, KeyboardInterrupt])
def test_what_a_callback_raises_ends_the_merge(error: type[BaseException], tmp_path: Path):
    make_large(tmp_path)

    def stop(progress: lorafold.Progress) -> None:
        raise error

    before = sorted(tmp_path.iterdir())
    with pytest.raises(error):
        lorafold.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "out", progress=stop)
    # A merge that had come to its end before it was stopped is complete.
    assert sorted(tmp_path.iterdir()) == before or lorafold.verify(tmp_path / "out")


@pytest.mark.parametrize("progress, is_shown", [(None, True), (False, False)])
def test_a_bar_is_shown_on_a_terminal(progress: bool | None, is_shown: bool, pair: Path, tmp_path: Path):
    pytest.importorskip("tqdm")
    code = """
import sys, lorafold
class Terminal:
    def __getattr__(self, name): return getattr(sys.__stderr__, name)
    def isatty(self): return True
sys.stderr = Terminal()
lorafold.merge(*sys.argv[1:4], progress=eval(sys.argv[4]))
"""
    words = [sys.executable, "-c", code, pair / "base", pair / "adapter", tmp_path / "out", repr(progress)]
    done = subprocess.run(words, capture_output=True, text=True, env=help.environment(TQDM_DISABLE=""), check=True)
    assert ("lorafold: 100%" in done.stderr) == is_shown, done.stderr


def test_a_bar_is_shown_in_a_notebook(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("tqdm")
    kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    from tqdm import tqdm

    bars = []
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=lambda **said: bars.append(said) or tqdm(**said)))
    lorafold.merge(pair / "base", pair / "adapter", tmp_path / "out")
    assert bars and bars[0]["desc"] == "lorafold"
    kernel.config = {}  # IPython on what is no terminal
    lorafold.merge(pair / "base", pair / "adapter", tmp_path / "other")
    assert len(bars) == 1


def test_shards_keep_their_index(pair: Path, tmp_path: Path):
    lorafold.merge(pair / "base", pair / "adapter", tmp_path / "out", max_shard_size=60_000)
    shards.check_index(tmp_path / "out")

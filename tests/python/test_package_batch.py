"""merge_many of the Python package: the outputs are those of merge(), and what failed is told."""

import os
import signal
from pathlib import Path

import pytest

import package_help as help  # first: it says where the package is
import lorafold


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made")
    base = help.make_base(directory / "base")
    model = help.trained(base)
    for name in ("chat", "style"):
        model.save_pretrained(directory / name)
        help.train(model, seed=5)
    (directory / "broken").mkdir()
    (directory / "broken" / "adapter_config.json").write_text("{")
    return directory


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_each_is_that_of_a_merge(made: Path, tmp_path: Path):
    chat, style = made / "chat", str(made / "style")
    seen: list[lorafold.Progress] = []
    outputs = {"one": chat, "two": (style, 0.5), "three": [chat, (style, 2)],
               "four": {"adapters": chat, "dtype": "bf16", "max_shard_size": "40KB"}, "five": {"adapters": [style], "save_method": "lora"}}  # fmt: skip
    report = lorafold.merge_many(made / "base", outputs, tmp_path / "out", max_shard_size="60KB", progress=seen.append)
    alone = {"one": (chat, {}), "two": ((style, 0.5), {}), "three": ([chat, (style, 2)], {}),
             "four": (chat, {"dtype": "bf16", "max_shard_size": "40KB"}), "five": (style, {"save_method": "lora"})}  # fmt: skip
    for name, (adapters, options) in alone.items():
        lorafold.merge(made / "base", adapters, tmp_path / name, **({"max_shard_size": "60KB"} | options))
        assert files_of(tmp_path / "out" / name) == files_of(tmp_path / name), name
    assert [one["name"] for one in report.outputs] == list(outputs)
    assert {one["state"] for one in report.outputs} == {"complete"} and report.outputs_complete == 5
    assert report.output == str(tmp_path / "out") and "one" in str(report) and report["bytes_read"] == report.bytes_read > 0
    assert seen[-1].outputs_done == seen[-1].outputs_total == 5
    assert lorafold.verify(tmp_path / "out").output_count == 5


def test_what_cannot_be_made_is_told_and_the_rest_is_made(made: Path, tmp_path: Path):
    outputs = {"good": made / "chat", "bad": made / "broken"}
    with pytest.raises(lorafold.BatchError) as caught:
        lorafold.merge_many(made / "base", outputs, tmp_path / "out", message=lambda *_: None)
    assert isinstance(caught.value, lorafold.MachineError) and caught.value.exit_code == 1
    states = {one["name"]: one for one in caught.value.report.outputs}
    assert states["good"]["state"] == "complete" and (tmp_path / "out" / "good" / "config.json").exists()
    assert states["bad"]["state"] == "left out" and states["bad"]["code"] == 3 and "broken" in states["bad"]["text"]
    assert not (tmp_path / "out" / "bad").exists()
    with pytest.raises(lorafold.FormatError):
        lorafold.merge_many(made / "base", outputs, tmp_path / "strict", strict=True)
    with pytest.raises(lorafold.FormatError):
        lorafold.merge_many(made / "base", {"bad": made / "broken"}, tmp_path / "strict", message=lambda *_: None)
    assert not (tmp_path / "strict").exists()


def test_skip_existing(made: Path, tmp_path: Path):
    out = tmp_path / "out"
    lorafold.merge_many(made / "base", {"one": made / "chat"}, out)
    before = (out / "one" / "model.safetensors").stat().st_mtime_ns
    outputs = {"one": made / "chat", "two": made / "style"}
    with pytest.raises(lorafold.LorafoldError):
        lorafold.merge_many(made / "base", {"one": made / "chat"}, out, message=lambda *_: None)
    report = lorafold.merge_many(made / "base", outputs, out, skip_existing=True)
    assert (report.outputs_complete, report.outputs_existing, report.outputs_failed) == (1, 1, 0)
    assert (out / "one" / "model.safetensors").stat().st_mtime_ns == before and (out / "two" / "config.json").exists()


BAD = [
    ({"a": {"dtype": "bf16"}}, {}, "output 'a' has no 'adapters'"),
    ({"a": {"adapters": "chat", "memory": 1}}, {}, "'memory' is no option of one output"),
    ({"a": {"adapters": "chat", "dtype": "x"}}, {}, "dtype 'x' is not known"),
    ({"../a": "chat"}, {}, "cannot be the name of an output"),
    ({}, {}, "."),
    ({"a": "chat"}, {"push_to_hub": "a/b"}, "push_to_hub is for one output"),
    ({"a": "chat"}, {"trace": "file"}, "trace is for one output"),
]


@pytest.mark.parametrize(("outputs", "options", "sentence"), BAD, ids=[sentence for *_, sentence in BAD])
def test_refusals(outputs: dict, options: dict, sentence: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(made)
    with pytest.raises(lorafold.UsageError, match=sentence):
        lorafold.merge_many("base", outputs, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(TypeError):
        lorafold.merge_many("base", ["chat"], tmp_path / "out")


def test_ctrl_c(large: Path, tmp_path: Path):
    """It ends cleanly: what is there afterwards is complete."""
    def interrupt(_now: lorafold.Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    outputs = {"one": large / "adapter", "two": (large / "adapter", 2.0)}
    with pytest.raises(KeyboardInterrupt):
        lorafold.merge_many(large / "base", outputs, tmp_path / "out", progress=interrupt, kernels="scalar", threads=1)
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert not [path for path in left if path.name.endswith(".partial")]
    assert all(lorafold.verify(path).file_count for path in left if path.is_dir())

"""Several outputs in one pass over the base: each with the bytes that it has alone, whatever happens to the others."""

import filecmp
import json
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
import moe_models
from conftest import Run
from quantised_schemes import SCHEMES
from test_quantised_bases import make_adapter as make_quantised_adapter
from test_quantised_bases import make_base as make_quantised_base
from test_tied import make_tied

VARIED = [
    [],
    ["--dtype", "f32", "--max-shard-size", "30kB"],
    ["--dtype", "f16"],
    ["--save-method", "merged_4bit"],
    ["--save-method", "merged_4bit", "--no-double-quant", "--quant-type", "fp4"],
    ["--save-method", "lora", "--dtype", "bf16"],
    ["--max-shard-size", "50kB"],
]
FIELDS = {"--save-method": "save_method", "--dtype": "dtype", "--max-shard-size": "max_shard_size", "--quant-type": "quant_type"}


def job(name: str, adapters: list[Path], options: list[str]) -> dict:
    fields: dict = {"name": name, "adapters": [str(adapter) for adapter in adapters]}
    words = iter(options)
    for word in words:
        if word == "--no-double-quant":
            fields["double_quant"] = False
        else:
            fields[FIELDS[word]] = next(words)
    return fields


def write_jobs(path: Path, jobs: list[dict]) -> Path:
    path.write_text(json.dumps({"outputs": jobs}))
    return path


def outputs_in(directory: Path) -> list[str]:
    """And nothing but these and their list."""
    assert (directory / "lorafold.batch.json").is_file()
    return sorted(path.name for path in directory.iterdir() if path.name != "lorafold.batch.json")


def same_directory(one: Path, other: Path) -> None:
    """But for the marker, which a run that is killed in the act of publishing may leave in the other."""
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir() if path.name != ".lorafold-work")
    assert filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


def check(lorafold: Run, base: Path, directory: Path, jobs: list[tuple[str, list[Path], list[str]]], *more: str) -> None:
    """The batch against as many runs."""
    file = write_jobs(directory / "jobs.json", [job(*one) for one in jobs])
    lorafold("merge", base, "--jobs", file, "-o", directory / "batch", *more)
    for name, adapters, options in jobs:
        words = [word for adapter in adapters for word in ("-a", adapter)]
        lorafold("merge", base, *words, "-o", directory / f"alone-{name}", *options)
        same_directory(directory / f"alone-{name}", directory / "batch" / name)
    assert outputs_in(directory / "batch") == sorted(name for name, *_ in jobs)


def make_adapters(base: Path, directory: Path, settings: list[dict]) -> list[Path]:
    adapters = []
    for number, lora in enumerate(settings):
        adapters.append(directory / "adapters" / f"a{number}")
        models.make_adapter(base, adapters[-1], torch.float32, seed=40 + number, **lora)
    return adapters


def linear(rank: int, *targets: str, **more: object) -> dict:
    return {"r": rank, "lora_alpha": rank, "target_modules": list(targets), "task_type": "CAUSAL_LM"} | more


@pytest.fixture
def four(tmp_path: Path) -> tuple[Path, list[Path]]:
    base = tmp_path / "base"
    models.tiny_llama(torch.bfloat16, 64, 112, 96, 2).save_pretrained(base, max_shard_size="60kB")
    settings = [linear(4, "q_proj", "down_proj"), linear(9, "v_proj"), linear(3, "o_proj", use_dora=True),
                linear(5, "embed_tokens", "gate_proj")]
    return base, make_adapters(base, tmp_path, settings)


def test_every_way_of_saving_in_one_pass(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    jobs = [(f"j{number}", [adapters[number % 3]], options) for number, options in enumerate(VARIED)]
    jobs += [("sum", adapters[:3], []), ("embedding", [adapters[3]], ["--dtype", "f32"])]
    check(lorafold, base, tmp_path, jobs)


@pytest.mark.parametrize("memory", ["48MiB", "512MiB"])
def test_memory_changes_no_byte(memory: str, lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    check(lorafold, base, tmp_path, [(f"j{i}", [a], ["--dtype", "f32"]) for i, a in enumerate(adapters)], "--memory", memory)


@pytest.mark.parametrize("io", [["--io", "threads", "--direct", "off"], ["--kernels", "scalar", "--threads", "1"]])
def test_every_way_of_working(io: list[str], lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    check(lorafold, base, tmp_path, [(f"j{number}", [adapter], []) for number, adapter in enumerate(adapters)], *io)


def test_a_tied_head_beside_outputs_that_stay_tied(lorafold: Run, tmp_path: Path):
    base, adapter, _ = make_tied(tmp_path)
    other = make_adapters(base, tmp_path, [linear(3, "v_proj")])[0]
    check(lorafold, base, tmp_path, [("untied", [adapter], []), ("tied", [other], []), ("again", [adapter], ["--dtype", "bf16"])])


def test_rows_of_tokens_in_a_tensor_of_several_blocks(lorafold: Run, tmp_path: Path):
    """Only the block with the rows differs between these outputs; the others of the tensor are alike."""
    base = tmp_path / "base"
    models.tiny_llama(torch.bfloat16, 64, 112, 100000, 1).save_pretrained(base)
    adapters = make_adapters(base, tmp_path, [linear(2, "q_proj", trainable_token_indices=[40000]) for _ in range(2)])
    for number, adapter in enumerate(adapters):
        path = adapter / "adapter_model.safetensors"
        tensors = load_file(path)
        (name,) = [name for name in tensors if "token_adapter" in name]
        tensors[name] = torch.full_like(tensors[name], 1 + number)
        save_file(tensors, path, metadata={"format": "pt"})
    check(lorafold, base, tmp_path, [(f"j{number}", [adapter], ["--dtype", "f32"]) for number, adapter in enumerate(adapters)])


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts(family: str, lorafold: Run, tmp_path: Path):
    base = tmp_path / "base"
    moe_models.make_base(family, base, torch.bfloat16)
    for number in range(2):
        moe_models.make_adapter(base, tmp_path / f"a{number}", seed=3 + number, target_modules=["q_proj"],
                                target_parameters=moe_models.PARAMETERS)
    check(lorafold, base, tmp_path, [("one", [tmp_path / "a0"], []), ("two", [tmp_path / "a1"], ["--dtype", "f32"])])


@pytest.mark.parametrize("scheme", ["nf4_nested", "fp8_blocks", "gptq_4", "ct_w4a16_zero_points", "ct_fp8_channel", "awq"])
def test_quantised_bases(scheme: str, lorafold: Run, tmp_path: Path):
    base, expected = make_quantised_base(tmp_path, scheme, split=True)
    first = make_quantised_adapter(tmp_path, expected)
    second = tmp_path / "second"
    models.make_adapter(tmp_path / "decoded", second, torch.float32, 8, r=3, lora_alpha=5, target_modules=["o_proj", "up_proj"])
    jobs = [("one", [first], []), ("two", [second], ["--dtype", "f32"]), ("both", [first, second], []),
            ("four", [second], ["--save-method", "merged_4bit"])]
    if "fp8" in scheme:
        jobs += [("same", [first], ["--save-method", "same"]), ("same2", [second], ["--save-method", "same"])]
    check(lorafold, base, tmp_path, jobs)


def test_each_and_adapters_dir_take_the_names_of_adapters(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    lorafold("merge", base, "-a", adapters[0], "-a", f"{adapters[1]}:0.5", "--each", "-o", tmp_path / "each")
    shutil.move(adapters[2], tmp_path / "adapters" / "c")
    (tmp_path / "adapters" / "deep" / "er").mkdir(parents=True)
    shutil.move(adapters[3], tmp_path / "adapters" / "deep" / "er" / "d")
    (tmp_path / "adapters" / "notes").mkdir()
    lorafold("merge", base, "--adapters-dir", tmp_path / "adapters", "-o", tmp_path / "all")
    assert outputs_in(tmp_path / "each") == ["a0", "a1"]
    assert outputs_in(tmp_path / "all") == ["a0", "a1", "c", "d"]
    same_directory(tmp_path / "each" / "a0", tmp_path / "all" / "a0")
    lorafold("merge", base, "-a", f"{adapters[1]}:0.5", "-o", tmp_path / "half")
    same_directory(tmp_path / "half", tmp_path / "each" / "a1")


def test_links_in_a_circle_lead_to_no_adapter_twice(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    (tmp_path / "adapters" / "loop").symlink_to(".")
    (tmp_path / "adapters" / "deep").mkdir()
    (tmp_path / "adapters" / "deep" / "up").symlink_to("../..")
    (adapters[0] / "self").symlink_to(".")
    lorafold("merge", base, "--adapters-dir", tmp_path / "adapters", "-o", tmp_path / "out")
    assert outputs_in(tmp_path / "out") == ["a0", "a1", "a2", "a3"]


def test_a_broken_adapter_is_left_out(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    (adapters[1] / "adapter_config.json").write_text("{")
    done = lorafold("merge", base, "--adapters-dir", tmp_path / "adapters", "-o", tmp_path / "out", status=1)
    assert "output 'a1' is left out" in done.stderr and "1 of 4 outputs were not made: 'a1'" in done.stderr
    assert outputs_in(tmp_path / "out") == ["a0", "a2", "a3"]
    lorafold("verify", tmp_path / "out")
    lorafold("plan", base, "--adapters-dir", tmp_path / "adapters", status=1)
    done = lorafold("merge", base, "--adapters-dir", tmp_path / "adapters", "-o", tmp_path / "strict", "--strict", status=3)
    assert "lorafold: output 'a1': " in done.stderr
    assert not (tmp_path / "strict").exists()


def test_an_output_that_fails_is_given_up_alone(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    path = adapters[1] / "adapter_model.safetensors"
    tensors = models.load_file(path)
    tensors[next(name for name in tensors if ".lora_B." in name)][0, 0] = float("nan")
    models.save_file(tensors, path, metadata={"format": "pt"})
    done = lorafold("merge", base, "--adapters-dir", tmp_path / "adapters", "-o", tmp_path / "out", status=1)
    assert "becomes NaN" in done.stderr and "failed    'a1'" in done.stdout
    assert outputs_in(tmp_path / "out") == ["a0", "a2", "a3"]
    file = write_jobs(tmp_path / "jobs.json", [job("nan", [adapters[1]], []) | {"allow_nonfinite": True}])
    lorafold("merge", base, "--jobs", file, "-o", tmp_path / "allowed")


def test_what_exists_is_refused_kept_or_replaced(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    words = ["merge", base, "-a", adapters[0], "-a", adapters[1], "--each", "-o", tmp_path / "out"]
    lorafold("merge", base, "-a", adapters[0], "-o", tmp_path / "alone")
    (tmp_path / "out" / "a0").mkdir(parents=True)
    (tmp_path / "out" / "a0" / "mine").write_text("not an output")
    done = lorafold(*words, status=1)
    assert "'a0' is left out" in done.stderr and (tmp_path / "out" / "a1" / "lorafold.json").is_file()
    before = (tmp_path / "out" / "a1" / "lorafold.json").stat().st_ino
    shutil.rmtree(tmp_path / "out" / "a0")
    lorafold(*words, "--skip-existing")
    assert (tmp_path / "out" / "a1" / "lorafold.json").stat().st_ino == before
    same_directory(tmp_path / "alone", tmp_path / "out" / "a0")
    (tmp_path / "out" / "lorafold.batch.json").unlink()  # as if the run had been killed before it wrote that
    lorafold(*words, "--skip-existing")
    assert (tmp_path / "out" / "lorafold.batch.json").is_file()
    lorafold(*words, status=2)
    lorafold(*words, "--overwrite")
    assert (tmp_path / "out" / "a1" / "lorafold.json").stat().st_ino != before
    lorafold("merge", base, "-a", adapters[0], "--each", "-o", tmp_path / "alone", status=2)


def test_a_link_in_the_place_of_an_output_is_refused(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    (tmp_path / "out").mkdir()
    (tmp_path / "empty").mkdir()
    lorafold("merge", base, "-a", adapters[2], "-o", tmp_path / "mine")
    shutil.copytree(tmp_path / "mine", tmp_path / "kept")
    words = ["merge", base, *(word for adapter in adapters[:3] for word in ("-a", adapter)), "--each", "-o", tmp_path / "out"]
    for name, target in (("a0", "mine"), ("a1", "empty"), ("a2", "nowhere")):
        (tmp_path / "out" / name).symlink_to(Path("..") / target)
    done = lorafold(*words, "--overwrite", status=2)
    assert "is a symbolic link" in done.stderr and "a0" in done.stderr
    (tmp_path / "out" / "a2").unlink()
    done = lorafold(*words, "--overwrite", status=1)
    assert done.stderr.count("is a symbolic link") >= 2 and "'a1'" in done.stderr
    same_directory(tmp_path / "kept", tmp_path / "mine")
    assert not list((tmp_path / "empty").iterdir()) and (tmp_path / "out" / "a2" / "lorafold.json").is_file()
    assert (tmp_path / "out" / "a0").is_symlink() and (tmp_path / "out" / "a1").is_symlink()
    done = lorafold(*words, "--skip-existing", status=1)  # what a link leads to is there, and is only looked at
    assert "2 were there" in done.stdout and "'a1'" in done.stderr


def test_a_link_as_the_output_of_one_merge_stays(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    lorafold("merge", base, "-a", adapters[0], "-o", tmp_path / "alone")
    lorafold("merge", base, "-a", adapters[1], "-o", tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    words = ["merge", base, "-a", adapters[0], "-o", tmp_path / "link"]
    lorafold(*words, status=2)
    lorafold(*words, "--overwrite")
    assert (tmp_path / "link").is_symlink()
    same_directory(tmp_path / "alone", tmp_path / "real")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("no model")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("notes")
    assert "does not look like a model" in lorafold(*words, "--overwrite", status=2).stderr
    assert (tmp_path / "notes" / "mine.txt").read_text() == "no model"


def test_names_never_leave_the_directory(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    for name in ["../x", "a/b", ".", "..", "", ".hidden", "a.partial", "a.lorafold-old", "x" * 250, "a\nb", "a\\b", "lorafold.batch.json", "Config.json",
                 "lorafold.json"]:
        file = write_jobs(tmp_path / "jobs.json", [job(name, [adapters[0]], [])])
        lorafold("merge", base, "--jobs", file, "-o", tmp_path / "out", status=3)
    file = write_jobs(tmp_path / "jobs.json", [job("x", [adapters[0]], []), job("x", [adapters[1]], [])])
    assert "two outputs would be called 'x'" in lorafold("merge", base, "--jobs", file, "-o", tmp_path / "out", status=3).stderr
    same = tmp_path / "elsewhere" / "a0"
    shutil.copytree(adapters[0], same)
    words = ["-a", adapters[0], "-a", same, "--each"]
    assert "two outputs would be called 'a0'" in lorafold("merge", base, *words, "-o", tmp_path / "out", status=2).stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text, place",
    [
        ('{"outputs": [{"adapters": ["a"], "dtyp": "bf16"}]}', "outputs[0].dtyp"),
        ('{"outputs": [{"adapters": ["a"]}, {"adapters": [{"path": "b", "weight": "1"}]}]}', "outputs[1].adapters[0].weight"),
        ('{"outputs": [{"adapters": ["a", 3]}]}', "outputs[0].adapters[1]"),
        ('{"outputs": [{"adapters": [{"weight": 1}]}]}', "outputs[0].adapters[0]"),
        ('{"outputs": [{"adapters": ["a"], "skip": ["x", 1]}]}', "outputs[0].skip[1]"),
        ('{"outputs": [{"adapters": ["a"], "max_shard_size": "big"}]}', "outputs[0].max_shard_size"),
        ('{"outputs": [{"adapters": ["a"], "allow_unused": 1}]}', "outputs[0].allow_unused"),
        ('{"outputs": [{"adapters": ["a"], "name": 1}]}', "outputs[0].name"),
        ('{"outputs": [{"name": "x"}]}', "outputs[0]"),
        ('{"outputs": []}', "outputs"),
        ('{"outputs": [{"adapters": ["a"]}], "more": 1}', "more"),
        ('{"outputs": [{"adapters": ["a"], "adapters": ["b"]}]}', "adapters"),
        ('[]', "outputs"),
        ('{"outputs": [', "jobs.json"),
    ],
)  # fmt: skip
def test_bad_fields_are_named_by_their_place(text: str, place: str, lorafold: Run, tmp_path: Path):
    (tmp_path / "jobs.json").write_text(text)
    done = lorafold("merge", tmp_path, "--jobs", tmp_path / "jobs.json", "-o", tmp_path / "out", status=3)
    assert "jobs.json'" in done.stderr and place in done.stderr.splitlines()[-1]


def test_every_bad_field_is_told(lorafold: Run, tmp_path: Path):
    (tmp_path / "jobs.json").write_text('{"outputs": [{"adapters": [], "dtype": 1, "tied": "no"}, 5]}')
    done = lorafold("merge", tmp_path, "--jobs", tmp_path / "jobs.json", "-o", tmp_path / "out", status=3)
    for place in ["outputs[0].adapters:", "outputs[0].dtype:", "outputs[0].tied:", "outputs[1]:"]:
        assert place in done.stderr


def test_bytes_are_read_once(lorafold: Run, program: Path, tmp_path: Path):
    base, adapters = large(program, tmp_path, 8)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    words = [word for adapter in adapters for word in ("-a", adapter)]
    done = lorafold("merge", base, *words, "--each", "-o", tmp_path / "out", "--json")
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["outputs_complete"] == 8 and size * 0.98 <= report["bytes_read"] <= size
    assert report["bytes_written"] >= 8 * size * 0.98
    for adapter in adapters:
        lorafold("merge", base, "-a", adapter, "-o", tmp_path / "alone")
        same_directory(tmp_path / "alone", tmp_path / "out" / adapter.name)
        shutil.rmtree(tmp_path / "alone")


def test_the_summary_says_what_a_single_one_says(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    one = ["merge", base, "-a", adapters[0], "-o", tmp_path / "one", "--device", "sim", "--json"]
    single = json.loads(lorafold(*one).stdout.splitlines()[-1])
    words = ["merge", base, "-a", adapters[0], "-a", adapters[1], "--each", "--device", "sim"]
    report = json.loads(lorafold(*words, "-o", tmp_path / "json", "--json").stdout.splitlines()[-1])
    assert report["device"] == single["device"] and report["device"].startswith("sim") and report["device_bytes"] > 0
    assert set(single) - set(report) <= {"shards"} | {name for name in single if name.startswith("tensors_")}
    summary = lorafold(*words, "-o", tmp_path / "text").stdout
    assert " streams of sim " in summary and " workers" not in summary
    assert " of the base read for all of them together; " in summary and "scales" not in summary
    (tmp_path / "quantised").mkdir()
    quantised, expected = make_quantised_base(tmp_path / "quantised", "fp8_blocks", split=True)
    adapter = make_quantised_adapter(tmp_path / "quantised", expected)
    summary = lorafold("merge", quantised, "-a", adapter, "--each", "-o", tmp_path / "scales", "--device", "cpu").stdout
    assert "together, and by each what its norms or scales need; " in summary and " kernels" in summary


def test_a_base_of_the_same_name_is_told_from_the_one_given(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    other = tmp_path / "elsewhere" / base.name
    shutil.copytree(base, other)
    for adapter in adapters[:2]:
        moe_models.edit_config(adapter, base_model_name_or_path=str(other))
    done = lorafold("merge", base, "-a", adapters[0], "-a", adapters[1], "--each", "-o", tmp_path / "out")
    for adapter in adapters[:2]:
        assert f"adapter '{adapter.name}' was made for '{other}', the base given is '{base}'" in done.stderr


def test_more_than_the_disk_has_room_for(lorafold: Run, tmp_path: Path):
    """A base that is a hole but for its header: two outputs fit, and three do not."""
    base = tmp_path / "base"
    base.mkdir()
    models.tiny_llama(torch.bfloat16, 64, 112, 96, 1).save_pretrained(tmp_path / "small")
    shutil.copy(tmp_path / "small" / "config.json", base)
    adapters = make_adapters(tmp_path / "small", tmp_path, [linear(2, "q_proj")] * 3)
    free = shutil.disk_usage(tmp_path).free
    rows = free * 2 // 5 // 2048
    header: dict = {"hole": {"dtype": "BF16", "shape": [rows, 1024], "data_offsets": [0, rows * 2048]}}
    place = rows * 2048
    for name, tensor in models.load_file(tmp_path / "small" / "model.safetensors").items():
        size = tensor.numel() * 2
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    with (base / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        try:
            file.truncate(8 + len(text) + place)
        except OSError as error:
            pytest.skip(f"no file of {place} bytes can be made here: {error}")
    words = [word for adapter in adapters for word in ("-a", adapter)]
    for command in ["merge", "plan"]:
        done = lorafold(command, base, *words, "--each", "-o", tmp_path / "out", status=1)
        assert "no space for 3 outputs in" in done.stderr and "which is enough for the first 2:" in done.stderr
        assert not (tmp_path / "out").exists()
    lorafold("plan", base, *words[:4], "--each", "-o", tmp_path / "out")
    jobs = [job(f"j{number}", [adapters[0]], ["--dtype", "f32"]) for number in range(4)]
    done = lorafold("merge", base, "--jobs", write_jobs(tmp_path / "jobs.json", jobs), "-o", tmp_path / "out", status=1)
    assert "which is enough for the first 1:" in done.stderr


def test_more_than_memory_has_room_for(lorafold: Run, program: Path, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    budget = 40 << 20

    def plan(count: int, status: int) -> str:
        jobs = [job(f"j{number}", [adapters[number % 4]], []) for number in range(count)]
        words = [program, "plan", base, "--jobs", write_jobs(tmp_path / "jobs.json", jobs), "-o", tmp_path / "out", "--memory", "40MiB"]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (budget, budget)))
        assert done.returncode == status, done.stderr
        return done.stderr

    told = re.search(r"enough for the first (\d+) of 4000 outputs, .* give some (\d+) MiB", plan(4000, 2))
    fitting, wanted = int(told[1]), int(told[2])
    assert 100 < fitting < 1000 and 100 < wanted < 1000
    plan(fitting, 0)
    assert f"the first {fitting} of {fitting + 1} " in plan(fitting + 1, 2)
    jobs = [job("one", [adapters[0]], [])]
    done = lorafold("plan", base, "--jobs", write_jobs(tmp_path / "jobs.json", jobs), "-o", tmp_path / "out", "--memory", "4MiB", status=2)
    assert "too small for output 'one': it needs at least" in done.stderr


def test_memory_holds_for_many(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    jobs = write_jobs(tmp_path / "jobs.json", [job(f"j{number}", [adapters[number % 4]], []) for number in range(120)])
    words = [base, "--jobs", jobs, "-o", tmp_path / "out", "--json"]
    least = json.loads(lorafold("plan", *words).stdout.splitlines()[0])["memory_least_bytes"]
    report = json.loads(lorafold("merge", *words, "--memory", str(least)).stdout.splitlines()[-1])
    assert report["outputs_complete"] == 120 and report["memory_peak_bytes"] <= least


def large(program: Path, directory: Path, count: int) -> tuple[Path, list[Path]]:
    """Two shards of some 20 blocks, and adapters of several ranks and targets."""
    maker = program.parent / "tools" / "make_model"
    if not maker.is_file():
        pytest.skip(f"there is no {maker}")
    (directory / "ads").mkdir()
    shape = ["--layers", "3", "--hidden", "1024", "--intermediate", "2816", "--vocab", "9000", "--shards", "2"]
    for number in range(count):
        words = [directory / "base", *shape, "--adapter", directory / "ads" / f"a{number}", "--rank", str(4 + 4 * number)]
        words += ["--targets", "qv"] if number % 3 == 1 else []
        words += ["--adapter-only"] if number else []
        subprocess.run([maker, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return directory / "base", [directory / "ads" / f"a{number}" for number in range(count)]


def complete(out: Path) -> list[str]:
    return sorted(path.parent.name for path in out.glob("*/lorafold.json") if not path.parent.name.endswith(".partial"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_batch_keeps_what_is_published(number: int, lorafold: Run, program: Path, tmp_path: Path):
    base, adapters = large(program, tmp_path, 3)
    file = write_jobs(tmp_path / "jobs.json", [job(a.name, [a], ["--dtype", d]) for a, d in zip(adapters, ["bf16", "f32", "f16"])])
    words = ["merge", base, "--jobs", file, "-o", tmp_path / "out"]
    lorafold("merge", base, "--jobs", file, "-o", tmp_path / "whole")
    rng = random.Random(number)
    for _ in range(4):
        process = subprocess.Popen([str(program), *map(str, words), "--skip-existing", "-q"], stdout=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.6)
        process.send_signal(number)
        process.wait()
        for name in complete(tmp_path / "out"):
            same_directory(tmp_path / "whole" / name, tmp_path / "out" / name)
        if number == signal.SIGINT and (tmp_path / "out").exists():
            assert not list((tmp_path / "out").glob("*.partial"))
    lorafold(*words, "--skip-existing")
    for adapter in adapters:
        same_directory(tmp_path / "whole" / adapter.name, tmp_path / "out" / adapter.name)
    assert complete(tmp_path / "out") == [adapter.name for adapter in adapters]
    assert outputs_in(tmp_path / "out") == complete(tmp_path / "out")


def test_verify_looks_at_every_output(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    lorafold("merge", base, "--adapters-dir", tmp_path / "adapters", "-o", tmp_path / "out")
    assert "4 outputs" in lorafold("verify", tmp_path / "out").stdout
    (tmp_path / "out" / "x.partial").mkdir()
    assert "'x.partial': it is not finished" in lorafold("verify", tmp_path / "out").stderr
    for name in ["a1", "a3"]:
        path = tmp_path / "out" / name / "config.json"
        path.write_bytes(path.read_bytes()[:-1] + b" ")
    done = lorafold("verify", tmp_path / "out", status=5)
    assert "output 'a1': 'config.json' is damaged" in done.stderr and "output 'a3': 'config.json' is damaged" in done.stderr


def test_verify_misses_a_whole_output(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    out = tmp_path / "out"
    config = (adapters[1] / "adapter_config.json").read_text()
    (adapters[1] / "adapter_config.json").write_text("{")
    words = ["merge", base, "-a", adapters[0], "-a", adapters[1], "--each", "-o", out]
    lorafold(*words, status=1)
    listed = {one["name"]: one["complete"] for one in json.loads((out / "lorafold.batch.json").read_text())["outputs"]}
    assert listed == {"a0": True, "a1": False}
    assert "output 'a1': it was to be made, and was not" in lorafold("verify", out).stderr
    (adapters[1] / "adapter_config.json").write_text(config)
    lorafold(*words, "--skip-existing")
    lorafold("merge", base, "-a", adapters[2], "--each", "-o", out)  # another batch adds its own
    assert not lorafold("verify", out).stderr
    for name in ["a1", "a2"]:
        shutil.rmtree(out / name)
    done = lorafold("verify", out, status=5)
    assert "output 'a1': it is missing" in done.stderr and "output 'a2': it is missing" in done.stderr
    lorafold(*words, "--skip-existing")
    assert "output 'a2': it is missing" in lorafold("verify", out, status=5).stderr
    shutil.rmtree(out / "a0")
    shutil.rmtree(out / "a1")
    assert "output 'a0': it is missing" in lorafold("verify", out, status=5).stderr
    for text in ['{"format": 1, "outputs": [{"name": "../out", "complete": true}]}', '{"format": 2, "outputs": []}', "", "[]"]:
        (out / "lorafold.batch.json").write_text(text)
        assert "lorafold.batch.json'" in lorafold("verify", out, status=3).stderr
    assert "is begun anew" in lorafold(*words).stderr
    assert not lorafold("verify", out).stderr and outputs_in(out) == ["a0", "a1"]
    (out / "lorafold.batch.json").unlink()
    (out / "lorafold.batch.json").mkdir()
    done = lorafold(*words, "--overwrite", status=1)
    assert "lorafold.batch.json' is not up to date: cannot rename" in done.stderr and "wrote     2 of 2 outputs" in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["a0", "a1", "lorafold.batch.json"]


def test_no_base_is_given(lorafold: Run, four: tuple[Path, list[Path]], tmp_path: Path):
    base, adapters = four
    for adapter in adapters:
        moe_models.edit_config(adapter, base_model_name_or_path=str(base))
    other = tmp_path / "other"
    shutil.copytree(base, other)
    moe_models.edit_config(adapters[2], base_model_name_or_path=str(other))
    done = lorafold("merge", "--adapters-dir", tmp_path / "adapters", "-o", tmp_path / "out", status=1)
    assert "names the base" in done.stderr and "give BASE" in done.stderr
    assert complete(tmp_path / "out") == ["a0", "a1", "a3"]

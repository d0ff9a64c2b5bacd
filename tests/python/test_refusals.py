"""Inputs that must be refused: the exit status, one sentence that names the thing, nothing written."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import models
import shards
from conftest import Run
from test_merge_live import make_pair

pytestmark = pytest.mark.usefixtures("nothing_left")

Change = Callable[[Path], None]
QUERY_MAGNITUDE = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
QUERY_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def edit_config(**changes: object) -> Change:
    def change(directory: Path) -> None:
        path = directory / "adapter" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def edit_factors(edit: Callable[[dict[str, torch.Tensor]], None]) -> Change:
    def change(directory: Path) -> None:
        path = directory / "adapter" / "adapter_model.safetensors"
        tensors = models.load_file(path)
        edit(tensors)
        models.save_file({name: value.contiguous() for name, value in tensors.items()}, path)

    return change


def edit_base(edit: Callable[[dict[str, torch.Tensor]], None]) -> Change:
    def change(directory: Path) -> None:
        path = directory / "base" / "model.safetensors"
        tensors = models.load_file(path)
        edit(tensors)
        models.save_file({name: value.contiguous() for name, value in tensors.items()}, path)

    return change


def rename_module(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".layers.0.self_attn.q_proj." in name]:
        tensors[name.replace(".layers.0.", ".layers.7.")] = tensors.pop(name)


def overflow(tensors: dict[str, torch.Tensor]) -> None:
    """Two finite numbers whose product is not."""
    tensors[QUERY_A][0, 0] = 3e38
    tensors[QUERY_A.replace("lora_A", "lora_B")][0, 0] = 3e38


def truncate(name: str) -> Change:
    def change(directory: Path) -> None:
        path = directory / name
        path.write_bytes(path.read_bytes()[:-100])

    return change


def set_first(name: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][0, 0] = value

    return edit


def write(name: str, text: str) -> Change:
    return lambda directory: (directory / name).write_text(text) and None


WRONG: dict[str, tuple[Change, int, str]] = {
    "module_that_the_base_lacks": (edit_factors(rename_module), 4, "layers.7"),
    "factors_of_another_width": (
        edit_factors(lambda tensors: tensors.update({QUERY_A: tensors[QUERY_A][:, :-1]})), 4, "q_proj",
    ),
    "base_of_another_shape": (
        edit_base(lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.weight": torch.ones(65, 64)})),
        4, "q_proj",
    ),
    "rank_that_differs_from_config": (edit_config(r=5), 3, "rank"),
    "factor_without_partner": (edit_factors(lambda tensors: tensors.pop(QUERY_A)), 3, "q_proj"),
    "factor_spelled_twice": (
        edit_factors(lambda tensors: tensors.update({"module." + QUERY_A: tensors[QUERY_A].clone()})), 3, "two tensors",
    ),
    "factors_of_two_adapters": (
        edit_factors(lambda tensors: tensors.update({QUERY_A.replace(".weight", ".other.weight"): torch.ones(4, 64)})),
        3, "other",
    ),
    "magnitude_without_dora": (
        edit_factors(lambda tensors: tensors.update({QUERY_MAGNITUDE: torch.ones(64)})), 3, "use_dora",
    ),
    "saved_tensor_that_nothing_explains": (
        edit_factors(lambda tensors: tensors.update({"base_model.model.model.norm.weight": torch.ones(64)})),
        4, "modules_to_save",
    ),
    "r_zero": (edit_config(r=0), 3, "'r'"),
    "alpha_as_text": (edit_config(lora_alpha="ten"), 3, "lora_alpha"),
    "alpha_not_a_number": (edit_config(lora_alpha=float("nan")), 3, "lora_alpha"),
    "alpha_infinite": (edit_config(lora_alpha=float("inf")), 3, "lora_alpha"),
    "unknown_peft_type": (edit_config(peft_type="FOLDING"), 3, "FOLDING"),
    "dora_with_a_bias_on_b": (edit_config(use_dora=True, lora_bias=True), 3, "'use_dora' and 'lora_bias'"),
    "kasa": (edit_config(kasa_config={"beta": 1e-4, "gamma": 1e-3}), 3, "singular values"),
    "pissa": (edit_config(init_lora_weights="pissa"), 3, "path_initial_model_for_weight_conversion"),
    "type_that_peft_merges": (edit_config(peft_type="LOHA"), 3, "merge_and_unload"),
    "type_of_prompts": (edit_config(peft_type="PREFIX_TUNING"), 3, "inputs of the model"),
    "config_is_not_json": (write("adapter/adapter_config.json", "{"), 3, "adapter_config.json"),
    "truncated_base": (truncate("base/model.safetensors"), 3, "model.safetensors"),
    "truncated_adapter": (truncate("adapter/adapter_model.safetensors"), 3, "adapter_model.safetensors"),
    "no_adapter_config": (lambda directory: (directory / "adapter/adapter_config.json").unlink(), 3, "adapter_config"),
    "nan_in_a_factor": (edit_factors(set_first(QUERY_A, float("nan"))), 3, "q_proj"),
    "overflow_of_the_result": (edit_factors(overflow), 3, "q_proj"),
    "nan_in_a_target": (
        edit_base(set_first("model.layers.1.mlp.up_proj.weight", float("nan"))), 3, "up_proj",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused(case: str, lorafold: Run, tmp_path: Path):
    change, status, word = WRONG[case]
    make_pair(tmp_path, "llama", torch.bfloat16)
    change(tmp_path)
    done = lorafold("merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", tmp_path / "out", status=status)
    assert word.lower() in done.stderr.lower()


OPTIONS = {
    "no_such_base": (["{dir}/none", "-a", "{dir}/adapter", "-o", "{dir}/out"], 2),
    "no_such_adapter": (["{dir}/base", "-a", "{dir}/none", "-o", "{dir}/out"], 2),
    "unknown_option": (["{dir}/base", "-a", "{dir}/adapter", "-o", "{dir}/out", "--fold"], 2),
    "memory_too_small": (["{dir}/base", "-a", "{dir}/adapter", "-o", "{dir}/out", "--memory", "1MiB"], 2),
    "output_inside_base": (["{dir}/base", "-a", "{dir}/adapter", "-o", "{dir}/base/out"], 2),
    "output_is_base": (["{dir}/base", "-a", "{dir}/adapter", "-o", "{dir}/base", "--overwrite"], 2),
    "weight_not_a_number": (["{dir}/base", "-a", "{dir}/adapter:nan", "-o", "{dir}/out"], 2),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_wrong_options_are_refused(case: str, lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    before = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    arguments, status = OPTIONS[case]
    lorafold("merge", *(word.format(dir=tmp_path) for word in arguments), status=status)
    assert {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()} == before


def test_a_sentence_is_one_write(program: Path, tmp_path: Path):
    """So that those of several processes do not mix; a pipe of packets keeps writes apart."""
    reader, writer = os.pipe2(os.O_DIRECT)
    with os.fdopen(reader, "rb", buffering=0) as packets:
        subprocess.run([program, "verify", tmp_path / "missing"], stderr=writer, check=False, timeout=60)
        os.close(writer)
        sentence = packets.read(os.fpathconf(reader, "PC_PIPE_BUF"))
        assert packets.read(1) == b""
    assert sentence.startswith(b"lorafold: ") and sentence.endswith(b"\n")


def test_nan_is_written_where_it_is_allowed(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    name = "model.layers.1.mlp.up_proj.weight"
    edit_base(set_first(name, float("nan")))(tmp_path)
    out = tmp_path / "allowed"
    lorafold("merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", out, "--allow-nonfinite")
    assert shards.read_model(out)[name].data[:2] == bytes.fromhex("c07f")
    assert models.load_tensors(out)[name][1:].isfinite().all()


def test_unused_factors_are_listed_where_that_is_allowed(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    edit_factors(lambda tensors: tensors.update({"base_model.model.strange": torch.ones(3)}))(tmp_path)
    arguments = ["merge", tmp_path / "base", "-a", tmp_path / "adapter"]
    done = lorafold(*arguments, "-o", tmp_path / "out", status=3)
    assert "strange" in done.stderr
    done = lorafold(*arguments, "-o", tmp_path / "allowed", "--allow-unused")
    assert "strange" in done.stderr + done.stdout


def test_factors_of_a_module_that_is_not_there_are_listed_where_that_is_allowed(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    edit_factors(rename_module)(tmp_path)
    out = tmp_path / "allowed"
    done = lorafold("merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", out, "--allow-unused")
    assert "layers.7.self_attn.q_proj" in done.stderr + done.stdout
    name = "model.layers.0.self_attn.q_proj.weight"
    assert shards.read_model(out)[name] == shards.read_model(tmp_path / "base")[name]


def test_plan_writes_nothing_and_is_json(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16)
    arguments = [tmp_path / "base", "-a", tmp_path / "adapter", "-o", tmp_path / "out"]
    text = lorafold("plan", *arguments).stdout
    assert "14" in text  # 2 layers with 7 linear modules each
    assert text == lorafold("merge", *arguments, "--dry-run").stdout
    for line in lorafold("plan", *arguments, "--json").stdout.splitlines():
        json.loads(line)

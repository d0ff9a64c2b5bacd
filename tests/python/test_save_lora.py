"""--save-method lora: the adapter as PEFT itself would have saved it."""

import json
import re
import shutil
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import kinds
import models
import moe_models
import shards
import test_keys
import test_torch_bin
from bases import BASES
from conftest import Run
from kinds import KINDS, Made
from test_kinds import Make, make  # noqa: F401: a fixture
from test_merge_live import make_pair

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ALONE = [name for name, kind in KINDS.items() if kind.second is None]
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
# With modules_to_save or not, PEFT writes these beside what counts; it never reads them.
COPIES = re.compile(r"\.(original_module|modules_to_save)\.")


def save(lorafold: Run, adapter: Path, out: Path, *more: str | Path, status: int = 0):
    return lorafold("merge", "--save-method", "lora", "-a", adapter, "-o", out, *more, status=status)


def saved_by_peft(adapter: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_file(adapter / WEIGHTS).items() if not COPIES.search(name)}


def assert_same_tensors(out: Path, expected: dict[str, torch.Tensor]) -> None:
    written = load_file(out / WEIGHTS)
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        assert written[name].dtype == tensor.dtype, name
        assert torch.equal(written[name], tensor), name


@pytest.mark.parametrize("name", ALONE)
def test_every_kind_as_peft_saved_it(name: str, make: Make, lorafold: Run, tmp_path: Path):  # noqa: F811
    made = make(KINDS[name])
    out = tmp_path / "out"
    save(lorafold, made.given[0], out, made.base / "f32")
    assert_same_tensors(out, saved_by_peft(made.saved[0]))
    lorafold("verify", out)
    with safe_open(out / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    again = Made(made.kind, made.base, [out], [out])
    assert torch.equal(BASES[made.kind.base].logits(again.unmerged()), made.trained_logits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["embedding_and_head", "dora", "modules_to_save", "tokens", "pickle"])
def test_conversion(name: str, dtype: str, make: Make, lorafold: Run, tmp_path: Path):  # noqa: F811
    made = make(KINDS[name])
    out = tmp_path / "out"
    save(lorafold, made.given[0], out, "--dtype", dtype)
    expected = {key: tensor.to(DTYPES[dtype]) for key, tensor in saved_by_peft(made.saved[0]).items()}
    assert_same_tensors(out, expected)
    lorafold("verify", out)
    Made(made.kind, made.base, [out], [out]).unmerged()


@pytest.mark.parametrize("case", test_keys.ADAPTERS)
def test_every_layer_as_peft_saved_it(case: str, lorafold: Run, tmp_path: Path):
    test_keys.save(tmp_path / "adapter", case)
    save(lorafold, tmp_path / "adapter", tmp_path / "out")
    assert_same_tensors(tmp_path / "out", saved_by_peft(tmp_path / "adapter"))


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_experts(family: str, lorafold: Run, tmp_path: Path):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base(family, base, torch.float32)
    moe_models.make_adapter(base, adapter, target_modules=["q_proj"],
                            target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    save(lorafold, adapter, out, base)
    assert_same_tensors(out, saved_by_peft(adapter))
    tokens = torch.arange(12).reshape(1, 12)
    logits = [
        peft.PeftModel.from_pretrained(moe_models.load(base, torch.float32), path).eval()(tokens).logits
        for path in (adapter, out)
    ]
    assert torch.equal(*logits)


def test_copies_and_wrappers_of_a_careless_program(lorafold: Run, tmp_path: Path):
    """As old programs leave it: saved modules in three forms, and the name of the adapter everywhere."""
    make_pair(tmp_path, "llama", torch.float32, modules_to_save=["lm_head"], target_modules=["q_proj"])
    path = tmp_path / "adapter" / WEIGHTS
    right = load_file(path)
    odd = {}
    for name, tensor in right.items():
        front = name.replace("base_model.model.", "module.base_model.model._orig_mod.")
        if ".lora_" in name:
            odd[front.replace(".weight", ".german.weight")] = tensor
        else:
            odd[front.replace(".weight", ".modules_to_save.german.weight")] = tensor
            odd[front.replace(".weight", ".original_module.weight")] = tensor * 2
    save_file(odd, path)
    save(lorafold, tmp_path / "adapter", tmp_path / "out", tmp_path / "base")
    assert_same_tensors(tmp_path / "out", right)


def test_biases_that_old_peft_saved_beside_wrapped_layers(lorafold: Run, tmp_path: Path):
    """Before 0.7 they had no base_layer in their names; PEFT of today does not find them."""
    make_pair(tmp_path, "qwen2", torch.float32, bias="lora_only", target_modules=["q_proj"])
    path = tmp_path / "adapter" / WEIGHTS
    right = load_file(path)
    assert any(name.endswith(".base_layer.bias") for name in right)
    save_file({name.replace(".base_layer.bias", ".bias"): tensor for name, tensor in right.items()}, path)
    save(lorafold, tmp_path / "adapter", tmp_path / "out", tmp_path / "base")
    assert_same_tensors(tmp_path / "out", right)


def test_the_output_merges_to_the_same_bytes(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.bfloat16, use_dora=True)
    base, out = tmp_path / "base", tmp_path / "out"
    save(lorafold, tmp_path / "adapter", out, base)
    for adapter in (tmp_path / "adapter", out):
        lorafold("merge", base, "-a", adapter, "-o", tmp_path / f"merged-{adapter.name}")
    merged = [shards.read_model(tmp_path / f"merged-{name}") for name in ("adapter", "out")]
    assert merged[0] == merged[1]


def test_side_files(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.float32)
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    (base / "tokenizer.json").write_text('{"of": "base"}')
    (base / "tokenizer_config.json").write_text('{"of": "base"}')
    (base / "modeling_own.py").write_text("raise SystemExit")
    (adapter / "chat_template.jinja").write_text("of the adapter")
    (adapter / "tokenizer_config.json").write_text('{"of": "adapter"}')
    (adapter / "README.md").write_text("---\nlicense: mit\n---\n")
    done = save(lorafold, adapter, out, base)
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", CONFIG, WEIGHTS, "chat_template.jinja", "lorafold.blocks", "lorafold.json", "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (out / "tokenizer_config.json").read_text() == '{"of": "adapter"}'
    card = (out / "README.md").read_text()
    front = card.split("---\n")[1].splitlines()
    assert {"library_name: peft", "license: mit", 'base_model: "tiny/base"', "base_model_relation: adapter"} <= {*front}
    manifest = json.loads((out / "lorafold.json").read_text())
    assert manifest["options"]["save_method"] == "lora"
    assert manifest["base"]["shards"]
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text('{"of": "option"}')
    save(lorafold, adapter, tmp_path / "out2", "--tokenizer", tmp_path / "tokenizer")
    assert (tmp_path / "out2" / "tokenizer.json").read_text() == '{"of": "option"}'


def test_configuration_is_edited_as_text(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.float32)
    path = tmp_path / "adapter" / CONFIG
    text = path.read_text()
    odd = text.replace('"inference_mode": true', '"inference_mode" :  false').replace("{\n", '{ "unknown": [1, {}],\n', 1)
    assert odd != text
    path.write_text(odd)
    save(lorafold, tmp_path / "adapter", tmp_path / "out", tmp_path / "base")
    assert (tmp_path / "out" / CONFIG).read_text() == odd.replace(":  false", ":  true")


def cached(tmp_path: Path, base: Path) -> dict[str, str]:
    """The base as org/name in a cache of the hub."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--tiny--base"
    shutil.copytree(base, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    return {"HF_HUB_CACHE": str(tmp_path / "hub")}


def test_base_by_its_name(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.float32)
    adapter, out = tmp_path / "adapter", tmp_path / "out"
    kinds.edit_config(adapter, base_model_name_or_path="/home/me/base", revision="old")
    environment = cached(tmp_path, tmp_path / "base")
    lorafold("merge", "tiny/base", "--save-method", "lora", "-a", adapter, "-o", out, environment=environment)
    config = json.loads((out / CONFIG).read_text())
    assert config == json.loads((adapter / CONFIG).read_text()) | {
        "base_model_name_or_path": "tiny/base", "revision": None, "inference_mode": True,
    }
    assert 'base_model: "tiny/base"' in (out / "README.md").read_text()


def test_without_its_base_the_adapter_is_not_checked(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.float32)
    done = save(lorafold, tmp_path / "adapter", tmp_path / "out")
    assert "not read, so the adapter is not checked against it" in done.stderr
    manifest = json.loads((tmp_path / "out" / "lorafold.json").read_text())
    assert manifest["base"] == {"name": None, "revision": None, "shards": []}


@pytest.mark.parametrize("given", [True, False])
def test_adapter_of_another_base(given: bool, lorafold: Run, tmp_path: Path, nothing_left: None):
    make_pair(tmp_path, "llama", torch.float32)
    models.from_config(transformers.LlamaConfig(**models.GROUPED | {"hidden_size": 32}), torch.float32).save_pretrained(
        tmp_path / "other"
    )
    kinds.edit_config(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "other"))
    more = [tmp_path / "other"] if given else []
    done = save(lorafold, tmp_path / "adapter", tmp_path / "out", *more, status=4)
    assert "shape" in done.stderr


@pytest.mark.parametrize("given", [True, False])
def test_quantised_base_is_looked_at_only_if_given(given: bool, lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.float32)
    path = tmp_path / "base" / "model.safetensors"
    tensors = {name: tensor.to(torch.float8_e4m3fn) if "q_proj" in name else tensor
               for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    kinds.edit_config(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base"))
    more = [tmp_path / "base"] if given else []
    done = save(lorafold, tmp_path / "adapter", tmp_path / "out", *more, status=3 if given else 0)
    if not given:
        assert "the adapter is not checked against its base" in done.stderr
        assert_same_tensors(tmp_path / "out", load_file(tmp_path / "adapter" / WEIGHTS))


def test_unused_tensors_are_left_out(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.float32, target_modules=["q_proj", "k_proj"])
    path = tmp_path / "adapter" / WEIGHTS
    right = load_file(path)
    save_file(right | {"base_model.model.strange.thing": torch.ones(3)}, path)
    save(lorafold, tmp_path / "adapter", tmp_path / "out", status=3)
    done = save(lorafold, tmp_path / "adapter", tmp_path / "out", "--allow-unused")
    assert "unused    base_model.model.strange.thing" in done.stderr
    assert_same_tensors(tmp_path / "out", right)


def test_modules_that_the_base_has_not_are_left_out_if_allowed(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.float32, target_modules=["q_proj", "k_proj"])
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("model.layers.1.self_attn.k_proj.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    right = {name: tensor for name, tensor in load_file(tmp_path / "adapter" / WEIGHTS).items()
             if "layers.1.self_attn.k_proj" not in name}
    save(lorafold, tmp_path / "adapter", tmp_path / "out", tmp_path / "base", status=4)
    save(lorafold, tmp_path / "adapter", tmp_path / "out", tmp_path / "base", "--allow-unused")
    assert_same_tensors(tmp_path / "out", right)


def test_torch_file_of_views_in_another_order(lorafold: Run, tmp_path: Path):
    twin = test_torch_bin.make_twin(tmp_path, use_dora=True)
    right = torch.load(twin / test_torch_bin.TORCH)
    test_torch_bin.save_factors(
        twin, lambda tensors: dict(reversed(test_torch_bin.views_of_one(tensors).items()))
    )
    save(lorafold, twin, tmp_path / "out")
    assert_same_tensors(tmp_path / "out", right)


def test_overflow_is_refused(lorafold: Run, tmp_path: Path, nothing_left: None):
    make_pair(tmp_path, "llama", torch.float32, target_modules=["q_proj"])
    path = tmp_path / "adapter" / WEIGHTS
    tensors = load_file(path)
    name = sorted(tensors)[1]
    tensors[name][3, 2] = 1e6
    save_file(tensors, path)
    done = save(lorafold, tmp_path / "adapter", tmp_path / "out", "--dtype", "f16", status=3)
    assert name in done.stderr


def test_output_is_never_the_adapter_itself(lorafold: Run, tmp_path: Path):
    make_pair(tmp_path, "llama", torch.float32)
    adapter = tmp_path / "adapter"
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    for out in (adapter, adapter / "out", tmp_path):
        save(lorafold, adapter, out, "--overwrite", status=2)
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before

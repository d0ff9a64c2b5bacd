"""save_pretrained_merged of live models: trained, saved as Unsloth's contract has it, loaded again, compared."""

import json
import logging
from pathlib import Path

import peft
import pytest
import torch

import models
import package_help as help  # first: it says where the package is
import lorafold
import shards
from test_quantised_bases import make_adapter, make_base


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return help.make_base(tmp_path / "base")


def test_the_call_people_know(base: Path, tmp_path: Path):
    model = help.trained(base)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    out = tmp_path / "out"
    report = lorafold.save_pretrained_merged(model, str(out), help.tokenizer_of(), save_method="merged_16bit")
    help.check_same_answers(out, model, base)
    assert report.output == str(out) and str(out) in str(report) and report.tensors_folded == 14
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "lorafold.json", "README.md",
            "generation_config.json"} <= {path.name for path in out.iterdir()}
    assert not [path for path in out.iterdir() if path.name.startswith((".", "adapter_"))]
    assert lorafold.verify(out).file_count
    after = model.state_dict()
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]


def test_16_bit_bases_stay_16_bit(tmp_path: Path):
    base = help.make_base(tmp_path / "base", torch.bfloat16)
    model = help.trained(base, torch.bfloat16)  # PEFT trains the factors in fp32
    lorafold.save_pretrained_merged(model, tmp_path / "out", max_shard_size="40KB")
    shards.check_index(tmp_path / "out")
    merged = model.merge_and_unload().state_dict()
    ours = models.load_tensors(tmp_path / "out")
    same = sum(int(torch.eq(one, merged[name]).sum()) for name, one in ours.items())
    assert all(one.dtype == torch.bfloat16 for one in ours.values())
    assert same >= 0.9999 * sum(one.numel() for one in ours.values())


@pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel])
def test_wrappers_are_taken_off(wrap, base: Path, tmp_path: Path):
    model = help.trained(base)
    lorafold.save_pretrained_merged(wrap(model), tmp_path / "out")
    help.check_same_answers(tmp_path / "out", model, base)


def test_an_adapter_by_its_path(base: Path, tmp_path: Path):
    model = help.trained(base)
    model.save_pretrained(tmp_path / "adapter")
    lorafold.save_pretrained_merged(tmp_path / "adapter", tmp_path / "out", tokenizer=None)
    help.check_same_answers(tmp_path / "out", model, base)
    with pytest.raises(lorafold.UsageError, match="is no adapter but a base"):
        lorafold.save_pretrained_merged(base, tmp_path / "other")


def two_adapters(base: Path) -> peft.PeftModel:
    model = help.trained(base)
    model.add_adapter("second", peft.LoraConfig(**(help.LORA | {"r": 2, "target_modules": ["q_proj", "down_proj"]})))
    model.set_adapter("second")
    help.train(model, seed=2)
    return model


@pytest.mark.parametrize("active", ["default", "second", ["default", "second"]], ids=str)
def test_the_active_adapters_are_folded(active, base: Path, tmp_path: Path):
    model = two_adapters(base)
    model.base_model.set_adapter(active)
    lorafold.save_pretrained_merged(model, tmp_path / "out")
    help.check_same_answers(tmp_path / "out", model, base)
    names = [one["name"] for one in json.loads((tmp_path / "out" / "lorafold.json").read_text())["adapters"]]
    assert names == [{"default": "adapter"}.get(name, name) for name in ([active] if isinstance(active, str) else active)]


@pytest.mark.parametrize(
    "lora",
    [
        {"use_rslora": True, "rank_pattern": {"q_proj": 7}, "alpha_pattern": {"v_proj": 3}},
        {"modules_to_save": ["lm_head"], "target_modules": ["q_proj", "v_proj"]},
        {"modules_to_save": ["embed_tokens", "lm_head"], "target_modules": ["q_proj"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"trainable_token_indices": [3, 5], "target_modules": ["q_proj"]},
        {"use_dora": True},
        {"bias": "all", "target_modules": ["q_proj"]},
    ],
    ids=lambda lora: "-".join(lora),
)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_kinds_of_adapters(lora: dict, family: str, tmp_path: Path):
    base = help.make_base(tmp_path / "base", family=family)
    model = help.trained(base, **lora)
    lorafold.save_pretrained_merged(model, tmp_path / "out")
    help.check_same_answers(tmp_path / "out", model, base)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("saved", [False, True], ids=["not saved", "saved"])
def test_grown_vocabulary(tied: bool, saved: bool, tmp_path: Path):
    """The new rows are in no base; PEFT is told to save them when nobody else has."""
    base = help.make_base(tmp_path / "base", tie_word_embeddings=tied)
    plain = models.load(base, torch.float32)
    plain.resize_token_embeddings(101)
    more = {"modules_to_save": ["embed_tokens"] + ([] if tied else ["lm_head"])} if saved else {}
    if saved and tied:
        more["ensure_weight_tying"] = True
    model = peft.get_peft_model(plain, peft.LoraConfig(**(help.LORA | {"target_modules": ["q_proj"]} | more)))
    help.train(model)
    lorafold.save_pretrained_merged(model, tmp_path / "out", help.tokenizer_of(101))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 101
    help.check_same_answers(tmp_path / "out", model, base)


def test_a_state_dict_stands_for_the_model(base: Path, tmp_path: Path):
    """As gathered from several processes: under the names of the model, or of the adapter's file."""
    model = help.trained(base)
    inside = {name: one.clone() for name, one in model.state_dict().items()}
    in_file = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    in_file = {name: one.clone() for name, one in in_file.items()}
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.zero_()
    lorafold.save_pretrained_merged(model, tmp_path / "one", state_dict=inside)
    lorafold.save_pretrained_merged(model, tmp_path / "two", state_dict=in_file)
    model.load_state_dict(inside)
    help.check_same_answers(tmp_path / "one", model, base)
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "two" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("method", ["merged_4bit", "merged_4bit_forced", "lora"])
def test_other_save_methods(method: str, base: Path, tmp_path: Path):
    model = help.trained(base)
    lorafold.save_pretrained_merged(model, tmp_path / "out", save_method=method)
    if method == "lora":
        loaded = peft.PeftModel.from_pretrained(models.load(base, torch.float32), tmp_path / "out").eval()
        torch.testing.assert_close(help.logits(loaded), help.logits(model))
    else:
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["quantization_config"]["load_in_4bit"]


@pytest.mark.parametrize("copy", ["-bnb-4bit", "-unsloth-bnb-4bit", "-FP8-Dynamic", "-GPTQ-Int4"])
def test_the_original_of_a_quantised_base_is_read(copy: str, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model = help.trained(base)
    named = f"{base}{copy}"
    Path(named).mkdir()
    model.get_base_model().config._name_or_path = named
    with caplog.at_level(logging.WARNING, "lorafold"):
        report = lorafold.save_pretrained_merged(model, tmp_path / "out")
    assert f"'{named}' is quantised" in caplog.text and f"'{base}'" in caplog.text
    assert report.base == "base"
    assert json.loads((tmp_path / "out" / "lorafold.json").read_text())["base"]["name"] == "base"
    help.check_same_answers(tmp_path / "out", model, base)


def test_same_reads_the_quantised_base_itself(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    quantised, decoded = make_base(tmp_path / "fp8", "fp8_blocks", False)
    adapter = make_adapter(tmp_path, decoded)
    copy = quantised.rename(f"{base}-FP8")
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(copy)}))
    with caplog.at_level(logging.WARNING, "lorafold"):
        report = lorafold.save_pretrained_merged(adapter, tmp_path / "out", save_method="same")
    assert "is quantised, the adapter" not in caplog.text
    assert report.base == "base-FP8"
    assert (tmp_path / "out" / "config.json").read_bytes() == (copy / "config.json").read_bytes()


def cached(cache: Path, repo: str, base: Path, commit: str) -> None:
    """As huggingface_hub lays it out."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    base.rename(snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)


CACHED = """
import sys, torch, peft
from transformers import AutoModelForCausalLM
import package_help as help, lorafold
model = AutoModelForCausalLM.from_pretrained("team/tiny", dtype=torch.float32)
model = peft.get_peft_model(model, peft.LoraConfig(**help.LORA))
help.train(model)
if len(sys.argv) > 2:
    model.get_base_model().config._name_or_path = sys.argv[2]
print(lorafold.save_pretrained_merged(model, sys.argv[1]).raw)
"""


@pytest.mark.parametrize("named", ["", "team/tiny-bnb-4bit", "Team/other"])
def test_the_base_comes_from_the_cache(named: str, base: Path, tmp_path: Path):
    cached(tmp_path / "hub", "team/tiny", base, "0123456789abcdef0123456789abcdef01234567")
    arguments = [tmp_path / "out"] + ([named] if named else [])
    if named == "Team/other":
        with pytest.raises(AssertionError, match="'Team/other' is not in the Hugging Face cache"):
            help.python(CACHED, *arguments, HF_HUB_CACHE=str(tmp_path / "hub"))
        assert not (tmp_path / "out").exists()
        return
    said = help.python(CACHED, *arguments, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert "'base': 'team/tiny'" in said
    about = json.loads((tmp_path / "out" / "lorafold.json").read_text())["base"]
    assert (about["name"], about["revision"][:4]) == ("team/tiny", "0123")


@pytest.mark.parametrize("dtype", [torch.float32, "bfloat16", torch.float16], ids=str)
def test_dtype(dtype, base: Path, tmp_path: Path):
    lorafold.save_pretrained_merged(help.trained(base), tmp_path / "out", dtype=dtype)
    wanted = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)
    assert {one.dtype for one in models.load_tensors(tmp_path / "out").values()} == {wanted}


def test_not_the_main_process(base: Path, tmp_path: Path):
    assert lorafold.save_pretrained_merged(None, tmp_path / "out", is_main_process=False) is None
    assert lorafold.push_to_hub_merged(None, "a/b", is_main_process=False) is None
    assert not (tmp_path / "out").exists()


def test_too_little_memory_leaves_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lorafold import _save_options

    model = help.trained(base)
    seen: list[str] = []
    save = model.save_pretrained
    monkeypatch.setattr(model, "save_pretrained", lambda path, **more: (seen.append(path), save(path, **more)))
    monkeypatch.setattr(_save_options, "available_bytes", lambda: 4 * 2**20)
    with pytest.raises(lorafold.UsageError, match="too small"):
        lorafold.save_pretrained_merged(model, tmp_path / "out", temporary_location=tmp_path / "a" / "b")
    assert Path(seen[0]).is_relative_to(tmp_path / "a" / "b") and not list((tmp_path / "a" / "b").iterdir())
    assert not (tmp_path / "out").exists()


def test_methods_of_the_model(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import sys
    import types

    unsloth = types.ModuleType("unsloth.save")
    monkeypatch.setitem(sys.modules, "unsloth.save", unsloth)
    for name in ("save_pretrained_merged", "push_to_hub_merged"):
        monkeypatch.setattr(peft.PeftModel, name, None, raising=False)  # undone at the end
    lorafold.patch()
    model = help.trained(base)
    model.save_pretrained_merged(tmp_path / "one", help.tokenizer_of())
    assert unsloth.unsloth_generic_save_pretrained_merged is lorafold.save_pretrained_merged
    assert unsloth.unsloth_generic_push_to_hub_merged is lorafold.push_to_hub_merged
    model.save_pretrained_merged = None  # as Unsloth binds its own to each model
    assert lorafold.attach(model) is model
    model.save_pretrained_merged(tmp_path / "two", help.tokenizer_of())
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (tmp_path / "two" / "model.safetensors").read_bytes()

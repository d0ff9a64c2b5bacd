"""What save_pretrained_merged refuses: parameters that it cannot honour, and changes that would be lost."""

import logging
from pathlib import Path

import peft
import pytest
import torch

import models
import package_help as help  # first: it says where the package is
import lorafold


@pytest.fixture
def model(tmp_path: Path) -> peft.PeftModel:
    return help.trained(help.make_base(tmp_path / "base"))


def refused(model: object, tmp_path: Path, match: str, **options: object) -> None:
    """Refused with a sentence; nothing is written."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(lorafold.UsageError, match=match) as error:
        lorafold.save_pretrained_merged(model, tmp_path / "out", **options)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


BAD = [
    ({"save_method": "16bit"}, "'16bit' is not known; it is one of: merged_16bit, merged_4bit, merged_4bit_forced, lora, same"),
    ({"save_method": "mxfp4"}, "is not known"),
    ({"save_function": print}, "save_function cannot be called"),
    ({"save_peft_format": False}, "save_peft_format=False"),
    ({"maximum_memory_usage": 0}, "maximum_memory_usage 0 is not a fraction"),
    ({"maximum_memory_usage": 0.96}, "maximum_memory_usage"),
    ({"max_shard_size": "big"}, "max_shard_size 'big' is not a size"),
    ({"use_temp_dir": False}, "use_temp_dir"),
    ({"calibration_dataset": []}, "calibrate"),
    ({"num_calibration_samples": 4}, "calibrate"),
    ({"max_seq_length": 4}, "calibrate"),
    ({"dtype": "int8"}, "dtype 'int8' is none of"),
    ({"tags": ["x"]}, "tags is for a push"),
    ({"private": True}, "private is for a push"),
    ({"private": False}, "private is for a push"),
    ({"revision": "main"}, "revision is for a push"),
    ({"create_pr": True}, "create_pr is for a push"),
    ({"commit_message": "x"}, "commit_message is for a push"),
    ({"commit_description": "x"}, "commit_description is for a push"),
    ({"datasets": ["x"]}, "datasets is for a push"),
    ({"repo_id": "a/b"}, "repo_id is for a push"),
    ({"push_to_hub": True}, "is not the name of a repository"),
    ({"base": "/nowhere"}, "no such file"),
    ({"tokenizer": "/nowhere"}, "is not a directory"),
    ({"state_dict": {"model.norm.weight": 1}}, "holds no tensor of an adapter"),
]


@pytest.mark.parametrize("options, sentence", BAD, ids=[str(options) for options, _ in BAD])
def test_parameters(options: dict, sentence: str, model: peft.PeftModel, tmp_path: Path):
    refused(model, tmp_path, sentence, **options)


def test_a_pruned_model(model: peft.PeftModel, tmp_path: Path):
    layer = model.get_base_model().model.layers[1].mlp
    for one in (layer.gate_proj, layer.up_proj, layer.down_proj):
        whole = one.base_layer.weight
        one.base_layer.weight = torch.nn.Parameter(whole[:64, :64].clone(), requires_grad=False)
    refused(model, tmp_path, "'model.layers.1.mlp.gate_proj.weight' of this model is neither")


NOTHING = [{"save_function": torch.save}, {"token": "hf_x"}, {"use_temp_dir": True}, {"safe_serialization": None},
           {"max_shard_size": None}, {"install_missing_dependencies": False}]  # fmt: skip


@pytest.mark.parametrize("options", NOTHING, ids=[",".join(one) for one in NOTHING])
def test_values_that_change_nothing(options: dict, model: peft.PeftModel, tmp_path: Path):
    lorafold.save_pretrained_merged(model, tmp_path / "out", **options)


def test_unknown_parameters_are_a_type_error(model: peft.PeftModel, tmp_path: Path):
    with pytest.raises(TypeError, match="quantization"):
        lorafold.save_pretrained_merged(model, tmp_path / "out", quantization="q4")
    with pytest.raises(TypeError, match="int"):
        lorafold.save_pretrained_merged(model, tmp_path / "out", save_method=16)
    with pytest.raises(TypeError, match="not dict"):
        lorafold.save_pretrained_merged({}, tmp_path / "out")


def test_a_model_without_an_adapter(model: peft.PeftModel, tmp_path: Path):
    refused(model.merge_and_unload(), tmp_path, "holds no adapter")
    plain = models.load(tmp_path / "base", torch.float32)
    plain.add_adapter(peft.LoraConfig(**help.LORA))
    refused(plain, tmp_path, "by transformers' own means")


def test_disabled_adapters(model: peft.PeftModel, tmp_path: Path):
    with model.disable_adapter():
        refused(model, tmp_path, "are disabled")
    model.base_model.set_adapter([])
    refused(model, tmp_path, "no adapter of this model is active")


def test_merged_adapters(model: peft.PeftModel, tmp_path: Path):
    model.merge_adapter()
    refused(model, tmp_path, r"call model.unmerge_adapter\(\) first")


def test_rescaled_adapters(model: peft.PeftModel, tmp_path: Path):
    layer = next(one for one in model.modules() if hasattr(one, "scale_layer"))
    layer.scale_layer(0.5)
    refused(model, tmp_path, "was rescaled in")


def test_other_methods(tmp_path: Path):
    base = help.make_base(tmp_path / "base")
    for config in (peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), peft.IA3Config(task_type="CAUSAL_LM")):
        with pytest.raises(lorafold.LorafoldError):
            lorafold.save_pretrained_merged(peft.get_peft_model(models.load(base, torch.float32), config), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_changed_base_weights(model: peft.PeftModel, tmp_path: Path):
    with torch.no_grad():
        model.get_base_model().model.norm.weight.add_(0.01)
    refused(model, tmp_path, "'model.norm.weight' of this model is neither as in its base nor part of its adapter")


def test_a_base_in_another_dtype_is_not_changed(tmp_path: Path):
    """bf16 files, loaded as fp16, some of it as fp32 since, as for training on a quantised base."""
    base = help.make_base(tmp_path / "base", torch.bfloat16)
    model = peft.get_peft_model(models.load(base, torch.float16), peft.LoraConfig(**help.LORA))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data = parameter.data.float()
    lorafold.save_pretrained_merged(model, tmp_path / "out")


def test_more_tokens_than_rows(model: peft.PeftModel, tmp_path: Path):
    refused(model, tmp_path, "has 97 tokens and the model's embeddings 96 rows", tokenizer=help.tokenizer_of(97))


def test_a_state_dict_of_another_adapter(model: peft.PeftModel, tmp_path: Path):
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    state.pop(min(state))
    refused(model, tmp_path, "the state_dict lacks", state_dict=state)
    refused("/nowhere", tmp_path, "no path here|no such file", state_dict=state)


def test_a_model_without_a_base(tmp_path: Path):
    plain = models.from_config(models.FAMILIES["llama"](), torch.float32)
    model = peft.get_peft_model(plain, peft.LoraConfig(**help.LORA))
    refused(model, tmp_path, "give base=")
    plain.save_pretrained(tmp_path / "elsewhere")
    base = tmp_path / "base"
    models.from_config(models.FAMILIES["llama"](), torch.float32).save_pretrained(base)
    lorafold.save_pretrained_merged(model, tmp_path / "out", base=base)


@pytest.mark.parametrize("name", ["base", "adapter"])
def test_inputs_are_not_written_into(name: str, model: peft.PeftModel, tmp_path: Path):
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "link").symlink_to(tmp_path / name)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    for directory in (tmp_path / name, tmp_path / "link"):
        with pytest.raises(lorafold.UsageError, match=f"is the {name} itself"):
            lorafold.save_pretrained_merged(tmp_path / "adapter", directory)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_names_of_originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    from lorafold import _base

    monkeypatch.chdir(tmp_path)
    for name in ("unsloth/Llama-3.1-8B-bnb-4bit", "unsloth/Llama-3.1-8B-unsloth-bnb-4bit", "unsloth/Llama-3.1-8B-FP8"):
        assert _base.original_of(name) == "unsloth/Llama-3.1-8B"
    for name in ("unsloth/Llama-3.1-8B", "team/4bit", "tiiuae/Falcon-H1-1B-bnb-4bit", "a/b-fp8x"):
        assert _base.original_of(name) is None
    (tmp_path / "tiny-bnb-4bit").mkdir()
    assert _base.original_of("tiny-bnb-4bit") is None  # all that is here
    (tmp_path / "tiny").mkdir()
    with caplog.at_level(logging.WARNING, "lorafold"):
        assert _base.find("tiny-bnb-4bit/", None, None).name == "tiny"
        assert _base.find("tiny-bnb-4bit", None, "tiny-bnb-4bit").name == "tiny-bnb-4bit"
    assert len(caplog.records) == 1

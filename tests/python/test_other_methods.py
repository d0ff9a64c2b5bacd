"""What cannot be folded, as real adapters of PEFT where it can make them: refused by name, nothing written."""

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftType

import kinds
import models
from bases import BASES, grow, make_base
from conftest import Run
from kinds import Kind

pytestmark = pytest.mark.usefixtures("nothing_left")

LINEAR = {"target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
PROMPT = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}
METHODS: dict[PeftType, Callable[[], peft.PeftConfig]] = {
    PeftType.LOHA: lambda: peft.LoHaConfig(**LINEAR, r=4),
    PeftType.LOKR: lambda: peft.LoKrConfig(**LINEAR, r=4),
    PeftType.ADALORA: lambda: peft.AdaLoraConfig(**LINEAR, init_r=4, total_step=10),
    PeftType.IA3: lambda: peft.IA3Config(**LINEAR, feedforward_modules=["down_proj"]),
    PeftType.VERA: lambda: peft.VeraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", r=4),
    PeftType.OFT: lambda: peft.OFTConfig(**LINEAR, oft_block_size=8, r=0),
    PeftType.BOFT: lambda: peft.BOFTConfig(**LINEAR, boft_block_size=4),
    PeftType.HRA: lambda: peft.HRAConfig(**LINEAR, r=4),
    PeftType.MISS: lambda: peft.MissConfig(**LINEAR, r=4),
    PeftType.FOURIERFT: lambda: peft.FourierFTConfig(**LINEAR, n_frequency=20),
    PeftType.LN_TUNING: lambda: peft.LNTuningConfig(target_modules=["input_layernorm"], task_type="CAUSAL_LM"),
    PeftType.PROMPT_TUNING: lambda: peft.PromptTuningConfig(**PROMPT),
    PeftType.PREFIX_TUNING: lambda: peft.PrefixTuningConfig(**PROMPT),
    PeftType.P_TUNING: lambda: peft.PromptEncoderConfig(**PROMPT, encoder_hidden_size=8),
}
FOLDED = {PeftType.LORA, PeftType.TRAINABLE_TOKENS}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llama")
    make_base("llama", directory)
    return directory


def save_with(method: Callable[[], peft.PeftConfig], base: Path, adapter: Path) -> None:
    model = peft.get_peft_model(BASES["llama"].load(base / "f32"), method())
    kinds.randomise_trained(model, 3)
    model.save_pretrained(adapter)


def refuse(lorafold: Run, base: Path, tmp_path: Path, word: str, adapter: Path | None = None) -> None:
    arguments = ["merge", base / "f32", "-a", adapter or tmp_path / "adapter", "-o", tmp_path / "out"]
    done = lorafold(*arguments, status=3)
    assert word.lower() in done.stderr.lower(), done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_adapters_of_other_methods_are_refused(method: PeftType, base: Path, lorafold: Run, tmp_path: Path):
    save_with(METHODS[method], base, tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == method
    refuse(lorafold, base, tmp_path, method)


def test_every_method_that_peft_knows_is_refused_by_its_name(base: Path, lorafold: Run, tmp_path: Path):
    kinds.save_adapter(Kind("", {}), {}, base, tmp_path / "adapter", seed=1)
    others = set(PeftType) - FOLDED
    assert len(others) > 20
    for method in others:
        kinds.edit_config(tmp_path / "adapter", peft_type=str(method.value))
        refuse(lorafold, base, tmp_path, method.value)


# Fields of LoraConfig that leave no weight to write, as PEFT saves them.
LORA: dict[str, tuple[Callable[[], dict], str]] = {
    "alora": (lambda: {"alora_invocation_tokens": [1, 2]}, "alora"),
    "kasa": (lambda: {"kasa_config": peft.KasaConfig()}, "kasa"),
    "pissa": (lambda: {"init_lora_weights": "pissa"}, "pissa"),
    "pissa_niter": (lambda: {"init_lora_weights": "pissa_niter_4"}, "pissa"),
    "olora": (lambda: {"init_lora_weights": "olora"}, "olora"),
}


@pytest.mark.parametrize("name", LORA)
def test_lora_on_another_base_or_on_single_tokens_is_refused(name: str, base: Path, lorafold: Run, tmp_path: Path):
    lora, word = LORA[name]
    kinds.save_adapter(Kind("", {}), lora(), base, tmp_path / "adapter", seed=1)
    refuse(lorafold, base, tmp_path, word)


# The same for what PEFT makes only with data, a quantised base or several adapters: the configuration says it.
FIELDS: dict[str, tuple[dict, str]] = {
    "arrow": ({"arrow_config": {"top_k": 3, "router_temperature": 1.0}}, "arrow"),
    "qalora": ({"use_qalora": True, "qalora_group_size": 16}, "qalora"),
    "corda": ({"init_lora_weights": "corda"}, "corda"),
    "loftq": ({"init_lora_weights": "loftq"}, "loftq"),
    "lora_ga": ({"init_lora_weights": "lora_ga"}, "lora_ga"),
    "unknown_init": ({"init_lora_weights": "by_moonlight"}, "by_moonlight"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_that_change_what_the_factors_mean_are_refused(name: str, base: Path, lorafold: Run, tmp_path: Path):
    fields, word = FIELDS[name]
    kinds.save_adapter(Kind("", {}), {}, base, tmp_path / "adapter", seed=1)
    kinds.edit_config(tmp_path / "adapter", **fields)
    refuse(lorafold, base, tmp_path, word)


@pytest.mark.parametrize("rslora", [False, True], ids=["plain", "rslora"])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_converted_adapters_are_folded(init: str, rslora: bool, base: Path, lorafold: Run, tmp_path: Path):
    """With the first factors subtracted the adapter is an ordinary LoRA of twice the rank."""
    lora = {"init_lora_weights": init, "use_rslora": rslora}
    model = BASES["llama"].load(base / "f32")
    config = Kind("", {}).settings(lora)
    model = peft.get_peft_model(model, config)
    model.peft_config["default"].init_lora_weights = True  # what PEFT's documentation asks for
    model.save_pretrained(tmp_path / "first")
    model.peft_config["default"].init_lora_weights = init
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    model.save_pretrained(tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "first"))
    trained = BASES["llama"].logits(model)
    out = tmp_path / "merged"
    lorafold("merge", base / "f32", "-a", tmp_path / "adapter", "-o", out)
    merged = BASES["llama"].logits(BASES["llama"].load(out))
    torch.testing.assert_close(merged, trained, rtol=0, atol=1e-4 * trained.abs().max().item())


def test_a_lost_embedding_is_refused(base: Path, lorafold: Run, tmp_path: Path):
    """PEFT saves a grown head and not the grown embedding if only the head is targeted."""
    kind = Kind("", {}, prepare=grow)
    kinds.save_adapter(kind, {"target_modules": ["lm_head"]}, base, tmp_path / "adapter", seed=1)
    names = models.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert not any("embed_tokens" in name for name in names)
    arguments = ["merge", base / "f32", "-a", tmp_path / "adapter", "-o", tmp_path / "out"]
    assert "embed" in lorafold(*arguments, status=3).stderr


def test_files_of_an_old_torch_are_refused(base: Path, lorafold: Run, tmp_path: Path):
    kinds.save_adapter(Kind("", {}), {}, base, tmp_path / "adapter", seed=1)
    kinds.as_pickle(_use_new_zipfile_serialization=False)(tmp_path / "adapter")
    refuse(lorafold, base, tmp_path, "adapter_model.bin")


def test_several_named_adapters_are_refused_with_their_names(base: Path, lorafold: Run, tmp_path: Path):
    for name in ("german", "french"):
        kinds.save_adapter(Kind("", {}), {}, base, tmp_path / "adapters" / name, seed=1)
    arguments = ["merge", base / "f32", "-a", tmp_path / "adapters", "-o", tmp_path / "out"]
    done = lorafold(*arguments, status=2)
    assert "german" in done.stderr and "french" in done.stderr


def test_two_adapters_that_replace_one_tensor_are_refused(base: Path, lorafold: Run, tmp_path: Path):
    arguments = ["merge", base / "f32", "-o", tmp_path / "out"]
    for number in range(2):
        kinds.save_adapter(Kind("", {}), {"modules_to_save": ["lm_head"]}, base, tmp_path / str(number), seed=number)
        arguments += ["-a", tmp_path / str(number)]
    assert "lm_head" in lorafold(*arguments, status=4).stderr

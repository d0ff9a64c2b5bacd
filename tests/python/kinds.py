"""Every kind of LoRA that PEFT can save, each as a tiny base, an adapter made by PEFT, and what to expect.

KINDS is also the source of the README's table: `row` stands there.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import peft
import torch
import transformers
from peft.tuners.lora.config import BdLoraConfig
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

import models
from every_layer import EveryLayer, EveryLayerConfig

Model = torch.nn.Module
TOKENS = torch.arange(1, 33).reshape(2, 16)


@dataclass(frozen=True)
class Base:
    build: Callable[[], PreTrainedModel]
    load: Callable[[Path], PreTrainedModel]
    transposed: Callable[[str], bool] = lambda module: False

    def logits(self, model: Model) -> torch.Tensor:
        with torch.no_grad():
            return model.eval().float()(input_ids=TOKENS).logits


def causal(config: Callable[[], transformers.PretrainedConfig], **more: object) -> Base:
    return Base(
        lambda: AutoModelForCausalLM.from_config(config()),
        lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        **more,
    )


def llama(**changes: object) -> transformers.LlamaConfig:
    return transformers.LlamaConfig(**(models.GROUPED | changes))


def gpt2() -> transformers.GPT2Config:
    names = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 96}
    return transformers.GPT2Config(**names, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False)


BASES = {
    "llama": causal(llama),
    "qwen2": causal(lambda: transformers.Qwen2Config(**models.GROUPED)),  # has biases
    "gpt2": causal(gpt2, transposed=lambda module: module.rsplit(".", 1)[-1] in ("c_attn", "c_proj", "c_fc")),
    "every_layer": Base(
        lambda: EveryLayer(EveryLayerConfig()), lambda path: EveryLayer.from_pretrained(path, dtype=torch.float32)
    ),
    "classifier": Base(
        lambda: AutoModelForSequenceClassification.from_config(llama(num_labels=3)),
        lambda path: AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32),
    ),
}


def make_base(name: str, directory: Path) -> None:
    """f32/ and bf16/ hold the same numbers."""
    torch.manual_seed(5)
    model = BASES[name].build().float()
    models.randomise(model, 5)
    model.to(torch.bfloat16).save_pretrained(directory / "bf16")
    model.float().save_pretrained(directory / "f32")


def nothing(*_: object) -> None:
    """The default of a step."""


def grow(model: PreTrainedModel) -> None:
    """Eight more tokens, with numbers that bf16 can hold."""
    model.resize_token_embeddings(104, mean_resizing=False)
    generator = torch.Generator().manual_seed(6)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        new = torch.randn((8, layer.weight.shape[1]), generator=generator) * 0.1
        layer.weight.data[96:] = new.bfloat16().float()


@dataclass(frozen=True)
class Kind:
    row: str
    lora: dict = field(default_factory=dict)
    base: str = "llama"
    method: type[peft.PeftConfig] = peft.LoraConfig
    prepare: Callable[[PreTrainedModel], None] = nothing  # what happens to the model before PEFT sees it
    rewrite: Callable[[Path], Path | None] = nothing  # what happens to the saved adapter; where it is then
    second: dict | None = None  # a second adapter
    weights: tuple[float, ...] = (1.0,)
    config: dict = field(default_factory=dict)  # how the config.json of the merged model differs

    def settings(self, lora: dict) -> peft.PeftConfig:
        if self.method is not peft.LoraConfig:
            return self.method(**lora)
        task = {} if self.base == "every_layer" else {"task_type": "CAUSAL_LM"}
        return peft.LoraConfig(**({"r": 6, "lora_alpha": 10, "target_modules": ["q_proj", "down_proj"]} | task | lora))


def randomise_trained(model: Model, seed: int) -> None:
    """In place, since tied factors share their memory."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if "lora_magnitude" in name:
            parameter.data *= 1 + 0.2 * noise
        elif "lora_" in name:
            parameter.data.copy_(noise * 0.15)
        else:
            parameter.data += noise * 0.1


def edit_config(adapter: Path, **changes: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def save_adapter(kind: Kind, lora: dict, base: Path, adapter: Path, seed: int) -> None:
    model = BASES[kind.base].load(base / "f32")
    kind.prepare(model)
    model = peft.get_peft_model(model, kind.settings(lora))
    randomise_trained(model, seed)
    model.save_pretrained(adapter)  # looks into the base for the size of the vocabulary
    edit_config(adapter, base_model_name_or_path="tiny/base")


@dataclass
class Made:
    kind: Kind
    base: Path  # with f32/ and bf16/
    saved: list[Path]  # as PEFT saved them
    given: list[Path]  # as the program gets them

    def arguments(self) -> list[str]:
        pairs = zip(self.given, self.kind.weights, strict=True)
        return [word for path, weight in pairs for word in ("-a", str(path) if weight == 1 else f"{path}:{weight}")]

    def unmerged(self) -> peft.PeftModel:
        """Base and adapters side by side, as they were trained."""
        model = BASES[self.kind.base].load(self.base / "f32")
        self.kind.prepare(model)
        names = ["default", *(f"adapter{number}" for number in range(1, len(self.saved)))]
        model = peft.PeftModel.from_pretrained(model, self.saved[0])
        for name, path in zip(names[1:], self.saved[1:], strict=True):
            model.load_adapter(path, name)
        if len(names) > 1:
            model.base_model.set_adapter(names)
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                for name, weight in zip(names, self.kind.weights, strict=True):
                    if name in layer.scaling:
                        layer.scaling[name] *= weight
        return model.eval()

    @cached_property
    def trained_logits(self) -> torch.Tensor:
        return BASES[self.kind.base].logits(self.unmerged())

    @cached_property
    def plain_logits(self) -> torch.Tensor:
        return BASES[self.kind.base].logits(BASES[self.kind.base].load(self.base / "f32"))


def make(kind: Kind, base: Path, directory: Path) -> Made:
    saved, given = [], []
    for number, lora in enumerate([kind.lora] if kind.second is None else [kind.lora, kind.second]):
        path = directory / f"adapter{number}"
        save_adapter(kind, lora, base, path, seed=30 + number)
        saved.append(path)
        other = directory / f"given{number}"
        shutil.copytree(path, other)
        given.append(kind.rewrite(other) or other)
    return Made(kind, base, saved, given)


def rename_keys(change: Callable[[str], str]) -> Callable[[Path], None]:
    def rewrite(directory: Path) -> None:
        path = directory / "adapter_model.safetensors"
        save_file({change(name): value for name, value in load_file(path).items()}, path, metadata={"format": "pt"})

    return rewrite


def as_pickle(**options: object) -> Callable[[Path], None]:
    def rewrite(directory: Path) -> None:
        path = directory / "adapter_model.safetensors"
        torch.save(load_file(path), directory / "adapter_model.bin", **options)
        path.unlink()

    return rewrite


def as_checkpoint(directory: Path) -> Path:
    """As a trainer leaves it: the adapter in a sub-directory, and files of the optimiser beside it."""
    checkpoint = directory.with_name(f"{directory.name}-run") / "checkpoint-20"
    checkpoint.parent.mkdir()
    directory.rename(checkpoint)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"step": 20}, checkpoint / name)
    (checkpoint / "trainer_state.json").write_text("{}")
    return checkpoint


FIRST = "base_model.model."
BLOCKS = {"target_modules_bd_a": ["down_proj"], "target_modules_bd_b": ["q_proj"], "nblocks": 2}
EVERY = {"base": "every_layer"}
GPT2 = {"base": "gpt2"}
ONE_LINEAR = {"target_modules": ["q_proj"]}

KINDS = {
    "linear": Kind("LoRA on linear layers", {"target_modules": "all-linear"}),
    "linear_with_bias": Kind("LoRA on linear layers", {"target_modules": ["linear"]}, **EVERY),
    "alpha_fraction": Kind("LoRA on linear layers", {"lora_alpha": 7.5}),
    "rslora": Kind("`use_rslora`", {"use_rslora": True}),
    "patterns": Kind(
        "`rank_pattern`, `alpha_pattern`",
        {"rank_pattern": {r"layers\.1\.self_attn\.q_proj": 3}, "alpha_pattern": {"down_proj": 21}},
    ),
    "conv1d_of_gpt2": Kind("LoRA on Conv1D (GPT-2)", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}, **GPT2),
    "conv1d_of_gpt2_square": Kind("LoRA on Conv1D (GPT-2)", {"target_modules": ["c_proj"], "fan_in_fan_out": True}, **GPT2),
    "conv1d": Kind("LoRA on Conv1d, Conv2d, Conv3d", {"target_modules": ["conv1"]}, **EVERY),
    "conv2d": Kind("LoRA on Conv1d, Conv2d, Conv3d", {"target_modules": ["conv2"]}, **EVERY),
    "conv2d_point": Kind("LoRA on Conv1d, Conv2d, Conv3d", {"target_modules": ["point"], "r": 2}, **EVERY),
    "conv3d": Kind("LoRA on Conv1d, Conv2d, Conv3d", {"target_modules": ["conv3"]}, **EVERY),
    "embedding": Kind("LoRA on embeddings", {"target_modules": ["embed_tokens", "q_proj"]}),
    "embedding_and_head": Kind("LoRA on embeddings", {"target_modules": ["embed_tokens", "lm_head"]}),
    "embedding_without_copy": Kind("LoRA on embeddings", {"target_modules": ["embed"]}, **EVERY),
    "attention": Kind("LoRA on MultiheadAttention", {"target_modules": ["attention"]}, **EVERY),
    "lora_bias": Kind("`lora_bias`", {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}, base="qwen2"),
    "lora_bias_of_gpt2": Kind(
        "`lora_bias`", {"lora_bias": True, "target_modules": ["c_attn"], "fan_in_fan_out": True}, **GPT2
    ),
    "lora_bias_of_convolution": Kind("`lora_bias`", {"lora_bias": True, "target_modules": ["conv2"]}, **EVERY),
    "bias_all": Kind('`bias="all"`, `bias="lora_only"`', {"bias": "all", "target_modules": ["q_proj"]}, base="qwen2"),
    "bias_all_every_layer": Kind(
        '`bias="all"`, `bias="lora_only"`', {"bias": "all", "target_modules": ["linear", "conv1"]}, **EVERY
    ),
    "bias_lora_only": Kind(
        '`bias="all"`, `bias="lora_only"`', {"bias": "lora_only", "target_modules": ["q_proj"]}, base="qwen2"
    ),
    "modules_to_save": Kind("`modules_to_save`", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "modules_to_save_norm": Kind("`modules_to_save`", {"modules_to_save": ["norm", "conv2"], "target_modules": ["linear"]}, **EVERY),
    "modules_to_save_head": Kind("`modules_to_save`", {"task_type": "SEQ_CLS"}, base="classifier"),
    "vocabulary_grown": Kind(
        "embeddings saved whole, also with a grown vocabulary",
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        prepare=grow,
        config={"vocab_size": 104},
    ),
    "vocabulary_grown_and_lora": Kind(
        "embeddings saved whole, also with a grown vocabulary",
        {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
        prepare=grow,
        config={"vocab_size": 104},
    ),
    "vocabulary_grown_alone": Kind(
        "embeddings saved whole, also with a grown vocabulary", prepare=grow, config={"vocab_size": 104}
    ),
    "vocabulary_grown_and_tokens": Kind(
        "embeddings saved whole, also with a grown vocabulary",
        {"trainable_token_indices": {"embed_tokens": [99, 4], "lm_head": [101]}},
        prepare=grow,
        config={"vocab_size": 104},
    ),
    "tokens": Kind("trainable tokens", {"trainable_token_indices": [3, 90, 17]}),
    "tokens_by_module": Kind("trainable tokens", {"trainable_token_indices": {"embed_tokens": [5, 4], "lm_head": [8, 1, 30]}}),
    "tokens_alone": Kind(
        "trainable tokens",
        {"token_indices": [9, 2, 41], "target_modules": ["embed_tokens"]},
        method=peft.TrainableTokensConfig,
    ),
    "dora": Kind("DoRA", {"use_dora": True, "target_modules": "all-linear"}),
    "dora_convolution": Kind("DoRA", {"use_dora": True, "target_modules": ["conv1", "conv2", "conv3"]}, **EVERY),
    "dora_embedding": Kind("DoRA", {"use_dora": True, "target_modules": ["embed_tokens"]}),
    "dora_conv1d_of_gpt2": Kind(
        "DoRA", {"use_dora": True, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}, **GPT2
    ),
    "dora_rslora": Kind("DoRA", {"use_dora": True, "use_rslora": True}),
    "bdlora": Kind("BD-LoRA", {"use_bdlora": BdLoraConfig(**BLOCKS)}),
    "layer_replication": Kind(
        "`layer_replication`",
        {"layer_replication": [[0, 2], [0, 1], [1, 2]]},
        config={"num_hidden_layers": 4},
    ),
    "several": Kind(
        "several adapters, with weights",
        {"target_modules": ["q_proj", "up_proj"]},
        second={"r": 3, "target_modules": ["up_proj", "down_proj"]},
        weights=(0.7, -0.3),
    ),
    "several_dora": Kind(
        "several adapters, with weights",
        {"use_dora": True},
        second={"use_dora": True, "r": 3},
        weights=(0.7, 0.4),
    ),
    "several_dora_and_plain": Kind(
        "several adapters, with weights", {"r": 3}, second={"use_dora": True}, weights=(0.7, 1.0)
    ),
    "init_gaussian": Kind('`init_lora_weights` of `"gaussian"`, `"orthogonal"`, `"eva"`, `"mica"`', {"init_lora_weights": "gaussian"}),
    "init_orthogonal": Kind('`init_lora_weights` of `"gaussian"`, `"orthogonal"`, `"eva"`, `"mica"`', {"init_lora_weights": "orthogonal"}),
    "init_eva": Kind('`init_lora_weights` of `"gaussian"`, `"orthogonal"`, `"eva"`, `"mica"`', {"init_lora_weights": "eva"}),
    "init_mica": Kind('`init_lora_weights` of `"gaussian"`, `"orthogonal"`, `"eva"`, `"mica"`', {"init_lora_weights": "mica"}),
    "pickle": Kind("`adapter_model.bin`", {"target_modules": "all-linear"}, rewrite=as_pickle()),
    "pickle_old": Kind("`adapter_model.bin`", rewrite=as_pickle(_use_new_zipfile_serialization=False)),
    "checkpoint": Kind("checkpoints of a trainer", rewrite=as_checkpoint),
    "keys_compiled": Kind(
        "keys with wrappers in them", rewrite=rename_keys(lambda name: name.replace(FIRST, FIRST + "_orig_mod."))
    ),
    "keys_doubled": Kind("keys with wrappers in them", rewrite=rename_keys(lambda name: FIRST + name)),
    "keys_default": Kind(
        "keys with wrappers in them", rewrite=rename_keys(lambda name: name.replace(".weight", ".default.weight"))
    ),
    "keys_bare": Kind("keys with wrappers in them", rewrite=rename_keys(lambda name: name.removeprefix(FIRST))),
}

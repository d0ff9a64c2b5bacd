"""Every kind of LoRA that PEFT can save, each as a tiny base, an adapter made by PEFT, and what to expect.

KINDS is also the source of the README's table: `row` stands there.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import peft
import torch
from peft.tuners.lora.config import BdLoraConfig
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from bases import BASES, grow

def nothing(*_: object) -> None:
    """The default of a step."""


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


def randomise_trained(model: torch.nn.Module, seed: int) -> None:
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


def as_last_checkpoint(directory: Path) -> Path:
    """The run is given, and an earlier checkpoint (the later one by its name) has other numbers."""
    checkpoint = as_checkpoint(directory)
    earlier = checkpoint.with_name("checkpoint-5")
    shutil.copytree(checkpoint, earlier)
    path = earlier / "adapter_model.safetensors"
    save_file({name: value * 2 for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    return checkpoint.parent


def as_named(directory: Path) -> Path:
    """An adapter that is not called "default" is saved in a sub-directory."""
    named = directory.with_name(f"{directory.name}-all") / "german"
    named.parent.mkdir()
    directory.rename(named)
    return named.parent


CONV1D = "LoRA on Conv1D (GPT-2)"
CONVOLUTION = "LoRA on Conv1d, Conv2d, Conv3d"
BIAS = '`bias="all"`, `bias="lora_only"`'
WHOLE = "embeddings saved whole, also with a grown vocabulary"
INIT = '`init_lora_weights` of `"gaussian"`, `"orthogonal"`, `"eva"`, `"mica"`'
SEVERAL = "several adapters, with weights"
PLACE = "checkpoints of a trainer, named adapters"
KEYS = "keys with wrappers in them"
FIRST = "base_model.model."
BLOCKS = {"target_modules_bd_a": ["down_proj"], "target_modules_bd_b": ["q_proj"], "nblocks": 2}
EVERY = {"base": "every_layer"}
GPT2 = {"base": "gpt2"}
TURNED = {"fan_in_fan_out": True}

KINDS = {
    "linear": Kind("LoRA on linear layers", {"target_modules": "all-linear"}),
    "linear_with_bias": Kind("LoRA on linear layers", {"target_modules": ["linear"]}, **EVERY),
    "alpha_fraction": Kind("LoRA on linear layers", {"lora_alpha": 7.5}),
    "rslora": Kind("`use_rslora`", {"use_rslora": True}),
    "patterns": Kind(
        "`rank_pattern`, `alpha_pattern`",
        {"rank_pattern": {r"layers\.1\.self_attn\.q_proj": 3}, "alpha_pattern": {"down_proj": 21}},
    ),
    "conv1d_of_gpt2": Kind(CONV1D, {"target_modules": ["c_attn", "c_fc"]} | TURNED, **GPT2),
    "conv1d_of_gpt2_square": Kind(CONV1D, {"target_modules": ["c_proj"]} | TURNED, **GPT2),
    "conv1d_of_gpt2_flag_not_set": Kind(CONV1D, {"target_modules": ["c_attn", "c_proj"]}, **GPT2),
    "conv1d": Kind(CONVOLUTION, {"target_modules": ["conv1"]}, **EVERY),
    "conv2d": Kind(CONVOLUTION, {"target_modules": ["conv2"]}, **EVERY),
    "conv2d_point": Kind(CONVOLUTION, {"target_modules": ["point"], "r": 2}, **EVERY),
    "conv3d": Kind(CONVOLUTION, {"target_modules": ["conv3"]}, **EVERY),
    "embedding": Kind("LoRA on embeddings", {"target_modules": ["embed_tokens", "q_proj"]}),
    "embedding_and_head": Kind("LoRA on embeddings", {"target_modules": ["embed_tokens", "lm_head"]}),
    "embedding_without_copy": Kind("LoRA on embeddings", {"target_modules": ["embed"]}, **EVERY),
    "attention": Kind("LoRA on MultiheadAttention", {"target_modules": ["attention"]}, **EVERY),
    "lora_bias": Kind("`lora_bias`", {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}, base="qwen2"),
    "lora_bias_of_gpt2": Kind(
        "`lora_bias`", {"lora_bias": True, "target_modules": ["c_attn"], "fan_in_fan_out": True}, **GPT2
    ),
    "lora_bias_of_convolution": Kind("`lora_bias`", {"lora_bias": True, "target_modules": ["conv2"]}, **EVERY),
    "lora_bias_beside_bias_all": Kind(
        BIAS, {"lora_bias": True, "bias": "all", "target_modules": ["q_proj", "k_proj", "v_proj"]},
        base="qwen2",
    ),
    "bias_all": Kind(BIAS, {"bias": "all", "target_modules": ["q_proj"]}, base="qwen2"),
    "bias_all_every_layer": Kind(
        BIAS, {"bias": "all", "target_modules": ["linear", "conv1"]}, **EVERY
    ),
    "bias_lora_only": Kind(
        BIAS, {"bias": "lora_only", "target_modules": ["q_proj"]}, base="qwen2"
    ),
    "modules_to_save": Kind("`modules_to_save`", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "modules_to_save_other": Kind(
        "`modules_to_save`", {"modules_to_save": ["norm", "conv2"], "target_modules": ["linear"]}, **EVERY
    ),
    "modules_to_save_head": Kind("`modules_to_save`", {"task_type": "SEQ_CLS"}, base="classifier"),
    "vocabulary_grown": Kind(
        WHOLE,
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        prepare=grow,
        config={"vocab_size": 104},
    ),
    "vocabulary_grown_and_lora": Kind(
        WHOLE,
        {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
        prepare=grow,
        config={"vocab_size": 104},
    ),
    "vocabulary_grown_alone": Kind(
        WHOLE, prepare=grow, config={"vocab_size": 104}
    ),
    "vocabulary_grown_and_tokens": Kind(
        WHOLE,
        {"trainable_token_indices": {"embed_tokens": [99, 4], "lm_head": [101]}},
        prepare=grow,
        config={"vocab_size": 104},
    ),
    "tokens": Kind("trainable tokens", {"trainable_token_indices": [3, 90, 17]}),
    "tokens_by_module": Kind(
        "trainable tokens", {"trainable_token_indices": {"embed_tokens": [5, 4], "lm_head": [8, 1, 30]}}
    ),
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
        SEVERAL,
        {"target_modules": ["q_proj", "up_proj"]},
        second={"r": 3, "target_modules": ["up_proj", "down_proj"]},
        weights=(0.7, -0.3),
    ),
    "several_dora": Kind(
        SEVERAL,
        {"use_dora": True},
        second={"use_dora": True, "r": 3},
        weights=(0.7, 0.4),
    ),
    "several_dora_and_plain": Kind(
        SEVERAL, {"r": 3}, second={"use_dora": True}, weights=(0.7, 1.0)
    ),
    "init_gaussian": Kind(INIT, {"init_lora_weights": "gaussian"}),
    "init_orthogonal": Kind(INIT, {"init_lora_weights": "orthogonal"}),
    "init_eva": Kind(INIT, {"init_lora_weights": "eva"}),
    "init_mica": Kind(INIT, {"init_lora_weights": "mica"}),
    "pickle": Kind("`adapter_model.bin`", {"target_modules": "all-linear"}, rewrite=as_pickle()),
    "checkpoint": Kind(PLACE, rewrite=as_checkpoint),
    "checkpoint_last": Kind(PLACE, rewrite=as_last_checkpoint),
    "named": Kind(PLACE, rewrite=as_named),
    "keys_compiled": Kind(
        KEYS, rewrite=rename_keys(lambda name: name.replace(FIRST, FIRST + "_orig_mod."))
    ),
    "keys_doubled": Kind(KEYS, rewrite=rename_keys(lambda name: FIRST + name)),
    "keys_default": Kind(
        KEYS, rewrite=rename_keys(lambda name: name.replace(".weight", ".default.weight"))
    ),
    "keys_sharded": Kind(
        KEYS, rewrite=rename_keys(lambda name: name.replace(".layers.", "._fsdp_wrapped_module.layers."))
    ),
    "keys_parallel": Kind(KEYS, rewrite=rename_keys(lambda name: name.replace(FIRST, FIRST + "module."))),
    "keys_of_old_dora": Kind(
        KEYS, {"use_dora": True}, rewrite=rename_keys(lambda name: re.sub("_vector$", "_vector.weight", name))
    ),
    "keys_bare": Kind(KEYS, rewrite=rename_keys(lambda name: name.removeprefix(FIRST))),
}

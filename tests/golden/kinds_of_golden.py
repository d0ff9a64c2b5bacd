"""The golden cases of every other kind of adapter; make_golden.py says what a case consists of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import peft
import torch
import transformers
from peft.tuners.lora.config import BdLoraConfig
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

import definition
import formula
import joining
import kinds
import models
import reference
from every_layer import EveryLayer, EveryLayerConfig

TINY = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 20, "max_position_embeddings": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}


def causal(config: transformers.PretrainedConfig) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(config)


def llama(**changes: object) -> PreTrainedModel:
    return causal(transformers.LlamaConfig(**(TINY | changes)))


def gpt2() -> PreTrainedModel:
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 20, "n_inner": 24}
    return causal(transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False))


def every_layer() -> PreTrainedModel:
    return EveryLayer(EveryLayerConfig(width=16, vocab_size=20))


def gpt_oss() -> PreTrainedModel:
    """Experts [E, in, out]; PEFT writes A over the inputs."""
    sizes = {"num_local_experts": 3, "num_experts_per_tok": 2, "head_dim": 8}
    return causal(transformers.GptOssConfig(**(TINY | {"intermediate_size": 12}), **sizes))


def llama4() -> PreTrainedModel:
    """Experts [E, in, out]; PEFT writes A over the outputs."""
    sizes = {"num_local_experts": 3, "intermediate_size_mlp": 12, "head_dim": 8, "attn_temperature_tuning": False}
    return causal(transformers.Llama4TextConfig(**(TINY | {"intermediate_size": 12}), **sizes))


def grow(model: PreTrainedModel) -> None:
    """Three more tokens, with numbers that bf16 can hold."""
    model.resize_token_embeddings(23, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight.data = layer.weight.data.bfloat16().float()


@dataclass(frozen=True)
class GoldenKind:
    model: Callable[[], PreTrainedModel]
    lora: list[dict]
    weights: list[float] = field(default_factory=lambda: [1.0])
    prepare: Callable[[PreTrainedModel], None] = kinds.nothing
    rewrite: Callable[[Path], None] = kinds.nothing
    transposed: tuple[str, ...] = ()  # ends of the modules whose weights are stored [in, out]

    def is_transposed(self, module: str) -> bool:
        return module.endswith(self.transposed)


CONV1D = ("c_attn", "c_proj", "c_fc")
WIDE = {"hidden_size": 40, "intermediate_size": 8, "head_dim": 4}  # more columns than the lanes of a norm
DORA = {"use_dora": True}
QUERY = {"target_modules": ["q_proj"]}
BLOCKS = BdLoraConfig(target_modules_bd_a=["down_proj"], target_modules_bd_b=["up_proj"], nblocks=2)


def experts(prefix: str) -> dict:
    return {"target_modules": ["q_proj"], "target_parameters": [f"{prefix}.gate_up_proj", f"{prefix}.down_proj"]}


KINDS = {
    "attention": GoldenKind(every_layer, [{"target_modules": ["attention"]}]),
    "bdlora": GoldenKind(llama, [{"target_modules": ["down_proj", "up_proj"], "r": 4, "use_bdlora": BLOCKS}]),
    "bias_all": GoldenKind(every_layer, [{"target_modules": ["linear"], "bias": "all"}]),
    "conv1d_gpt2": GoldenKind(
        gpt2, [{"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}], transposed=CONV1D
    ),
    "convolutions": GoldenKind(every_layer, [{"target_modules": ["conv1", "conv2", "conv3", "point"], "r": 3}]),
    "dora_conv1d_gpt2": GoldenKind(
        gpt2, [{"target_modules": ["c_attn"], "fan_in_fan_out": True} | DORA], transposed=CONV1D
    ),
    "dora_convolutions": GoldenKind(every_layer, [{"target_modules": ["conv1", "conv2", "conv3"], "r": 3} | DORA]),
    "dora_embedding": GoldenKind(llama, [{"target_modules": ["embed_tokens"]} | DORA]),
    "dora_linear": GoldenKind(lambda: llama(**WIDE), [{"target_modules": ["q_proj", "down_proj"]} | DORA]),
    "dora_several": GoldenKind(
        llama,
        [QUERY | DORA, QUERY, QUERY | DORA | {"r": 2}],
        weights=[0.7, -0.3, 1.0],
    ),
    "embedding": GoldenKind(llama, [{"target_modules": ["embed_tokens", "lm_head"]}]),
    "experts_a_over_inputs": GoldenKind(gpt_oss, [experts("mlp.experts") | {"r": 2}]),
    "experts_a_over_outputs": GoldenKind(llama4, [experts("feed_forward.experts") | {"r": 2}]),
    "grown_and_saved": GoldenKind(
        llama, [{"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}], prepare=grow
    ),
    "layer_replication": GoldenKind(
        lambda: llama(num_hidden_layers=2, hidden_size=8), [QUERY | {"layer_replication": [[0, 2], [1, 2]]}]
    ),
    "lora_bias": GoldenKind(every_layer, [{"target_modules": ["linear", "conv2"], "lora_bias": True}]),
    "pickle": GoldenKind(llama, [{"target_modules": ["q_proj", "up_proj"]}], rewrite=kinds.as_pickle()),
    "tokens": GoldenKind(
        llama, [QUERY | {"trainable_token_indices": {"embed_tokens": [7, 2], "lm_head": [19]}}]
    ),
}


def adapters_of(kind: GoldenKind, directory: Path) -> list[tuple[Path, float]]:
    names = ["adapter", *(f"adapter{number}" for number in range(2, len(kind.lora) + 1))]
    return [(directory / name, weight) for name, weight in zip(names, kind.weights, strict=True)]


def join(kind: GoldenKind, directory: Path) -> joining.Joined:
    return joining.join(models.load_tensors(directory / "base"), adapters_of(kind, directory), kind.is_transposed)


def share_of_rounded(joined: joining.Joined, expected: dict[str, torch.Tensor]) -> float:
    apart = total = 0
    for name, exact in formula.evaluate(joined).items():
        rounded = reference.rounded_once(exact, expected[name].dtype)
        count, far = formula.apart(expected[name], rounded, exact)
        assert not far, name
        apart += count
        total += exact.size
    return 1 - apart / total


def make_case(kind: GoldenKind, directory: Path) -> dict:
    torch.manual_seed(20)
    base = kind.model().float()
    models.randomise(base, 20)
    base.to(torch.bfloat16).save_pretrained(directory / "base")
    (directory / "base" / "generation_config.json").unlink(missing_ok=True)
    arguments = []
    for number, (adapter, weight) in enumerate(adapters_of(kind, directory)):
        model = type(base).from_pretrained(directory / "base", dtype=torch.float32)
        kind.prepare(model)
        lora = {"r": 3, "lora_alpha": 5} | kind.lora[number]
        model = peft.get_peft_model(model, peft.LoraConfig(**lora))
        kinds.randomise_trained(model, 100 + number)
        model.save_pretrained(adapter)
        (adapter / "README.md").unlink(missing_ok=True)
        kinds.edit_config(adapter, base_model_name_or_path="tiny/base")
        kind.rewrite(adapter)
        arguments += ["-a", adapter.name if weight == 1 else f"{adapter.name}:{weight}"]
    (directory / "arguments").write_text("\n".join(arguments) + "\n")
    joined = join(kind, directory)
    expected = definition.evaluate(joined)
    tensors = {name: expected[name].contiguous().clone() for name in sorted(expected)}
    save_file(tensors, directory / "expected.safetensors")
    return {"weights": kind.weights, "share_equal_to_float64": share_of_rounded(joined, expected)}

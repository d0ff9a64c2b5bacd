"""Tiny mixtures of experts, adapters of them as PEFT saves them, and what a merge must make of the two."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

import models
from reference import Delta

EXPERTS = 4
WIDTH = 48  # of an expert
TEXT = models.SMALL | {"num_key_value_heads": 2}
ROUTED = TEXT | {"num_experts_per_tok": 2}
DENSE = 112

VISION = {
    "hidden_size": 32, "depth": 1, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 64,
    "patch_size": 4, "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
}  # fmt: skip


def deepseek() -> transformers.PretrainedConfig:
    latent = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    groups = {"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1}
    sizes = {"intermediate_size": DENSE, "moe_intermediate_size": WIDTH, "n_routed_experts": EXPERTS}
    return transformers.DeepseekV3Config(**(ROUTED | {"num_key_value_heads": 4} | latent | groups | sizes))


def qwen3_vl() -> transformers.PretrainedConfig:
    text = ROUTED | {"intermediate_size": DENSE, "moe_intermediate_size": WIDTH, "num_experts": EXPERTS, "head_dim": 16}
    text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}}
    return transformers.Qwen3VLMoeConfig(text_config=text, vision_config=VISION)


# Layer 0 of qwen3_moe, deepseek_v3 and llama4_text is dense; the last two have shared experts.
FAMILIES: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "mixtral": lambda: transformers.MixtralConfig(**ROUTED, intermediate_size=WIDTH, num_local_experts=EXPERTS),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **ROUTED, intermediate_size=DENSE, moe_intermediate_size=WIDTH, num_experts=EXPERTS, head_dim=16,
        mlp_only_layers=[0],
    ),
    "deepseek_v3": deepseek,
    "gpt_oss": lambda: transformers.GptOssConfig(
        **ROUTED, intermediate_size=WIDTH, num_local_experts=EXPERTS, head_dim=16,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "llama4_text": lambda: transformers.Llama4TextConfig(
        **(TEXT | {"num_experts_per_tok": 1}), intermediate_size=WIDTH, intermediate_size_mlp=DENSE,
        num_local_experts=EXPERTS, head_dim=16, moe_layers=[1],
    ),
    "granitemoe": lambda: transformers.GraniteMoeConfig(**ROUTED, intermediate_size=WIDTH, num_local_experts=EXPERTS),
    "qwen3_vl_moe": qwen3_vl,
}  # fmt: skip
SINGLE = {"mixtral", "qwen3_moe", "deepseek_v3"}  # whose files hold expert by expert
GATE_UP_DOWN = ("gate_proj", "up_proj", "down_proj")
W = ("w1", "w3", "w2")
PARAMETERS = ["experts.gate_up_proj", "experts.down_proj"]


def auto_class(config: transformers.PretrainedConfig) -> type:
    return AutoModelForImageTextToText if config.model_type == "qwen3_vl_moe" else AutoModelForCausalLM


def load(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(directory)
    return auto_class(config).from_pretrained(directory, dtype=dtype).eval()


def make_base(family: str, directory: Path, dtype: torch.dtype) -> None:
    config = FAMILIES[family]()
    torch.manual_seed(5)
    model = auto_class(config).from_config(config, dtype=dtype).to(dtype)
    models.randomise(model, 5)
    model.save_pretrained(directory)


def rewrite_base(directory: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = directory / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def fuse(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Single experts as transformers holds them: [E, 2I, H] and [E, H, I]."""
    fused: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        head, found, _ = name.partition(".experts.")
        if not found:
            fused[name] = tensor
            continue
        gate, up, down = spelling_of(tensors)
        path = f"{head}.experts.".replace("block_sparse_moe", "mlp")

        def stack(part: str, head: str = head) -> torch.Tensor:
            return torch.stack([tensors[f"{head}.experts.{e}.{part}.weight"] for e in range(EXPERTS)])

        fused[path + "gate_up_proj"] = torch.cat([stack(gate), stack(up)], dim=1)
        fused[path + "down_proj"] = stack(down)
    return {name.replace("block_sparse_moe", "mlp"): tensor.contiguous() for name, tensor in fused.items()}


def transpose_experts(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """[E, H, 2I] and [E, I, H], as Qwen3-VL-MoE is published."""
    return {
        name: tensor.transpose(1, 2).contiguous() if tensor.dim() == 3 and ".experts." in name else tensor
        for name, tensor in tensors.items()
    }


def make_adapter(base: Path, adapter: Path, seed: int = 3, **lora: object) -> None:
    config = peft.LoraConfig(r=3, lora_alpha=5, **lora)
    model = peft.get_peft_model(load(base, torch.float32), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.15
    model.peft_config["default"].base_model_name_or_path = "tiny/base"
    model.save_pretrained(adapter)


def make_single_adapter(adapter: Path, layers: list[int], spelling: tuple[str, ...]) -> None:
    """Factors of single experts, as transformers 4 and PEFT made them."""
    generator = torch.Generator().manual_seed(4)
    block = "block_sparse_moe" if spelling[0] == "w1" else "mlp"
    sizes = [(WIDTH, 64), (WIDTH, 64), (64, WIDTH)]
    tensors = {}
    for layer in layers:
        for expert in range(EXPERTS):
            for part, (out, inner) in zip(spelling, sizes, strict=True):
                path = f"base_model.model.model.layers.{layer}.{block}.experts.{expert}.{part}"
                tensors[f"{path}.lora_A.weight"] = torch.randn(3, inner, generator=generator) * 0.15
                tensors[f"{path}.lora_B.weight"] = torch.randn(out, 3, generator=generator) * 0.15
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=list(spelling), task_type="CAUSAL_LM")
    config.base_model_name_or_path = "tiny/base"
    config.save_pretrained(adapter)


def edit_config(adapter: Path, **fields: object) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(config))


@dataclass
class Part:
    """What a merge adds to some rows of a base tensor, or to one expert's slice of it."""

    name: str
    expert: int | None
    delta: Delta


def parts_of(base: dict[str, torch.Tensor], adapter: Path, grouped: bool = False) -> list[Part]:
    """Every delta of an adapter, from the files alone; `grouped`: B has the rank run fastest."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    factors = load_file(adapter / "adapter_model.safetensors")
    parts: list[Part] = []
    for key, tensor in factors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        a, b = tensor.numpy(), factors[key.replace(".lora_A.", ".lora_B.")].numpy()
        path = module.removesuffix(".base_layer")
        if path.endswith(".experts"):
            parameter = parameter_of(config, inner=path != module)
            parts += fused_parts(base, config, f"{path}.{parameter}", a, b, grouped)
        elif ".experts." in path:
            parts.append(single_part(base, path, Delta(a, b, models.scale_of(config, path))))
        else:
            parts.append(Part(on_disk(base, f"{path}.weight"), None, Delta(a, b, models.scale_of(config, path))))
    return parts


def parameter_of(config: dict, inner: bool) -> str:
    named = {entry.rpartition(".")[2] for entry in config["target_parameters"]} - {"weight"}
    if len(named) == 1:
        return named.pop()
    return "gate_up_proj" if inner else "down_proj"


def on_disk(base: dict[str, torch.Tensor], name: str) -> str:
    renamed = [
        name,
        name.replace(".mlp.", ".block_sparse_moe."),
        name.replace(".block_sparse_moe.", ".mlp."),
        name.replace("model.layers.", "model.language_model.layers."),
        name.replace("router.weight", "router.layer.weight"),
    ]
    return next(candidate for candidate in renamed if candidate in base)


GRANITE = {"gate_up_proj": "input_linear.weight", "down_proj": "output_linear.weight"}


def fused_parts(
    base: dict[str, torch.Tensor], config: dict, path: str, a: np.ndarray, b: np.ndarray, grouped: bool
) -> list[Part]:
    rank = int(models.pattern_value(config.get("rank_pattern") or {}, path, config["r"]))
    scale = models.scale_of(config, path)
    experts, _, parameter = path.rpartition(".")
    assert a.shape[0] == EXPERTS * rank
    parts = []
    for e in range(EXPERTS):
        mine = a[e * rank : (e + 1) * rank]
        theirs = b[:, e * rank : (e + 1) * rank] if grouped else b[:, e::EXPERTS]
        fused = next((n for n in (path, experts.removesuffix("experts") + GRANITE[parameter]) if n in base), None)
        if fused:
            upright = Delta(mine, theirs, scale)
            fits = base[fused].shape[1:] == (b.shape[0], a.shape[1])
            parts.append(Part(fused, e, upright if fits else Delta(theirs.T, mine.T, scale)))
            continue
        spelling = spelling_of(base)
        names = [on_disk(base, f"{experts}.{e}.{part}.weight") for part in spelling]
        if parameter == "down_proj":
            parts.append(Part(names[2], None, Delta(mine, theirs, scale)))
        else:
            parts.append(Part(names[0], None, Delta(mine, theirs[:WIDTH], scale)))
            parts.append(Part(names[1], None, Delta(mine, theirs[WIDTH:], scale)))
    return parts


def spelling_of(base: dict[str, torch.Tensor]) -> tuple[str, ...]:
    return W if any(name.endswith(".w1.weight") for name in base) else GATE_UP_DOWN


def single_part(base: dict[str, torch.Tensor], path: str, delta: Delta) -> Part:
    """One expert's layer: a tensor of its own, or some rows or columns of its slice."""
    experts, expert, word = path.rsplit(".", 2)
    index = (W if word in W else GATE_UP_DOWN).index(word)
    if not any(".experts.0." in name for name in base):
        fused = on_disk(base, f"{experts}.{'down_proj' if index == 2 else 'gate_up_proj'}")
        wide = delta.b
        if index < 2:
            wide = np.zeros((2 * WIDTH, delta.b.shape[1]), np.float32)
            interleaved = f"{fused}_bias" in base  # GPT-OSS
            wide[slice(index, None, 2) if interleaved else slice(index * WIDTH, (index + 1) * WIDTH)] = delta.b
        upright = base[fused].shape[1:] == (wide.shape[0], delta.a.shape[1])
        a, b = (delta.a, wide) if upright else (wide.T, delta.a.T)
        return Part(fused, int(expert), Delta(a, b, delta.scale))
    return Part(on_disk(base, f"{experts}.{expert}.{spelling_of(base)[index]}.weight"), None, delta)

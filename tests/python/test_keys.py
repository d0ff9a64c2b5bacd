"""Adapters that PEFT saves for every kind of layer and option: each tensor finds its place."""

from pathlib import Path

import peft
import pytest
import torch
import transformers
from peft.tuners.lora.config import BdLoraConfig, MontecloraConfig, VeloraConfig
from safetensors.torch import load_file, save_file
from torch import nn

from conftest import Run


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(8, 8)
        self.register_buffer("positions", torch.arange(3))


class Layers(nn.Module):
    """One layer of each kind that PEFT's LoRA knows."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"tie_word_embeddings": False, "model_type": "none"}
        self.embed_tokens = nn.Embedding(11, 8)
        self.q = nn.Linear(8, 6)
        self.k = nn.Linear(6, 8)
        self.conv1 = nn.Conv1d(4, 6, 3)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.conv3 = nn.Conv3d(4, 6, 3)
        self.mha = nn.MultiheadAttention(8, 2)
        self.norm = nn.LayerNorm(8)
        self.classifier = Classifier()
        self.lm_head = nn.Linear(8, 11)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


def mixtral() -> nn.Module:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 2, "num_local_experts": 3, "vocab_size": 17}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes))


def gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=17))


CONVOLUTIONS = ["conv1", "conv2", "conv3"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
# The model, fields of LoraConfig, and how many pairs of factors there must be.
ADAPTERS = {
    "linear": (Layers, {"target_modules": ["q", "k"]}, 2),
    "conv1d_of_gpt2": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}, 3),
    "convolutions": (Layers, {"target_modules": CONVOLUTIONS}, 3),
    "embedding_and_head": (Layers, {"target_modules": ["embed_tokens", "lm_head"]}, 2),
    "attention": (Layers, {"target_modules": ["mha"]}, 2),
    "attention_and_biases": (Layers, {"target_modules": ["mha"], "bias": "all"}, 2),
    "attention_of_another_rank": (Layers, {"target_modules": ["mha"], "rank_pattern": {"mha": 3}}, 2),
    "lora_bias": (Layers, {"target_modules": ["q", "mha", "conv1"], "lora_bias": True}, 4),
    "dora": (Layers, {"target_modules": ["q", "embed_tokens", *CONVOLUTIONS], "use_dora": True}, 5),
    "saved_modules": (Layers, {"target_modules": ["q"], "modules_to_save": ["classifier", "norm"]}, 1),
    "saved_modules_and_biases": (
        Layers, {"target_modules": ["q"], "modules_to_save": ["classifier"], "bias": "all"}, 1,
    ),
    "all_biases": (Layers, {"target_modules": ["q", "conv1"], "bias": "all"}, 2),
    "lora_only_biases": (Layers, {"target_modules": ["q", "conv1"], "bias": "lora_only"}, 2),
    "trained_tokens": (Layers, {"target_modules": ["q"], "trainable_token_indices": [1, 3]}, 1),
    "trained_tokens_of_two": (
        Layers, {"target_modules": ["q"], "trainable_token_indices": {"embed_tokens": [1, 3], "lm_head": [2]}}, 1,
    ),
    "experts": (mixtral, {"target_modules": ["q_proj"], "target_parameters": EXPERTS}, 3),
    "experts_alone": (mixtral, {"target_modules": [], "target_parameters": ["gate_up_proj"]}, 1),
    "router": (mixtral, {"target_modules": ["q_proj"], "target_parameters": ["gate.weight"]}, 2),
    "all_linear_of_mixtral": (mixtral, {"target_modules": "all-linear"}, 7),
    "block_diagonal": (
        Layers,
        {"target_modules": ["q", "k"],
         "use_bdlora": BdLoraConfig(target_modules_bd_a=["q"], target_modules_bd_b=["k"], nblocks=2)},
        2,
    ),
    "velora": (Layers, {"target_modules": ["q"], "velora_config": VeloraConfig()}, 1),
    "monteclora": (Layers, {"target_modules": ["q"], "monteclora_config": MontecloraConfig()}, 1),
}


def save(directory: Path, case: str) -> int:
    make_model, fields, pairs = ADAPTERS[case]
    model = peft.get_peft_model(make_model(), peft.LoraConfig(r=4, **fields))
    model.save_pretrained(directory)
    return pairs


def check(lorafold: Run, adapter: Path, pairs: int) -> None:
    assert f'"modules":{pairs},' in lorafold("inspect", adapter, "--json").stdout
    assert "unused" not in lorafold("inspect", adapter).stdout


@pytest.mark.parametrize("case", ADAPTERS)
def test_each_tensor_of_peft_finds_its_place(case: str, lorafold: Run, tmp_path: Path):
    check(lorafold, tmp_path, save(tmp_path, case))


def test_trained_tokens_alone(lorafold: Run, tmp_path: Path):
    config = peft.TrainableTokensConfig(token_indices=[1, 3], target_modules=["embed_tokens"])
    peft.get_peft_model(Layers(), config).save_pretrained(tmp_path)
    check(lorafold, tmp_path, 0)


def test_embeddings_saved_whole(lorafold: Run, tmp_path: Path):
    config = peft.LoraConfig(r=4, target_modules=["q"], trainable_token_indices=[1, 3])
    peft.get_peft_model(Layers(), config).save_pretrained(tmp_path, save_embedding_layers=True)
    check(lorafold, tmp_path, 1)


SPELLINGS = {
    "two_names": lambda key: key.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.mine."),
    "named": lambda key: key.replace(".lora_A.", ".lora_A.mine.").replace(".lora_B.", ".lora_B.mine."),
    "compiled": lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
    "no_prefix": lambda key: key.replace("base_model.model.", ""),
    "prefix_twice": lambda key: "base_model.model." + key,
    "parallel": lambda key: "module." + key,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings(spelling: str, lorafold: Run, tmp_path: Path):
    pairs = save(tmp_path, "linear")
    path = tmp_path / "adapter_model.safetensors"
    save_file({SPELLINGS[spelling](key): value for key, value in load_file(path).items()}, path)
    if spelling == "two_names":
        lorafold("inspect", tmp_path, status=3)
    else:
        check(lorafold, tmp_path, pairs)

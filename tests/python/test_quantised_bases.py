"""Quantised bases of every scheme: what they are decoded to, and what a merge makes of them."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import models
import quantised
import reference
from conftest import Run, program_path
from quantised_schemes import SCHEMES

PROBE = program_path().parent / "tests" / "scheme_probe"


def make_base(directory: Path, name: str, split: bool) -> tuple[Path, dict[str, torch.Tensor]]:
    """A tiny model whose linear layers are quantised; and all its tensors as they should be decoded."""
    scheme = SCHEMES[name]
    if scheme.package and importlib.util.find_spec(scheme.package) is None:
        pytest.skip(f"the Python package {scheme.package} is missing")
    model = models.tiny_llama(torch.bfloat16, 64, 128, 96, 2)
    config = json.loads(model.config.to_json_string()) | {"architectures": ["LlamaForCausalLM"]}
    stored: dict[str, torch.Tensor] = {}
    expected: dict[str, torch.Tensor] = {}
    for key, tensor in model.state_dict().items():
        if key.endswith("_proj.weight"):
            parts, expected[key] = scheme.pack(tensor)
            stem = key.removesuffix(".weight")
            stored |= {stem + end: part for end, part in parts.items()}
        else:
            stored[key] = expected[key] = tensor
    if scheme.config:
        config[scheme.config_key] = scheme.config
    base = directory / "base"
    quantised.write(base, stored, config, split, scheme.extra)
    return base, expected


def probe(base: Path, out: Path) -> tuple[str, dict[str, torch.Tensor]]:
    done = subprocess.run([PROBE, base, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), load_file(out)


def same_tensors(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(got[name], tensor), (name, (got[name] != tensor).sum())


@pytest.mark.parametrize("split", [False, True], ids=["one_file", "two_shards"])
@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_is_decoded(name: str, split: bool, tmp_path: Path):
    base, expected = make_base(tmp_path, name, split)
    summary, got = probe(base, tmp_path / "decoded.safetensors")
    assert summary == f"{SCHEMES[name].summary}, 14 tensors"
    same_tensors(got, expected)


def keys_at_every_depth(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for child in value.values() for key in keys_at_every_depth(child)}
    if isinstance(value, list):
        return {key for child in value for key in keys_at_every_depth(child)}
    return set()


def make_adapter(directory: Path, expected: dict[str, torch.Tensor]) -> Path:
    """An adapter for a 16-bit model of the decoded weights."""
    model = models.tiny_llama(torch.bfloat16, 64, 128, 96, 2)
    model.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in expected.items()})
    model.save_pretrained(directory / "decoded")
    adapter = directory / "adapter"
    targets = ["q_proj", "v_proj", "down_proj"]
    models.make_adapter(directory / "decoded", adapter, torch.float32, 3, r=6, lora_alpha=9, target_modules=targets)
    return adapter


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_is_merged(name: str, lorafold: Run, tmp_path: Path):
    base, expected = make_base(tmp_path, name, split=True)
    adapter, out = make_adapter(tmp_path, expected), tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out)
    for key, deltas in models.deltas_of([(adapter, 1.0)]).items():
        expected[key] = reference.fold(expected[key], deltas)
    same_tensors(models.load_tensors(out), expected)
    config = json.loads((out / "config.json").read_text())
    assert not keys_at_every_depth(config) & {"quantization_config", "compression_config", "quantization"}
    assert not (out / "hf_quant_config.json").exists()
    plain = models.load(tmp_path / "decoded", torch.float32)
    plain.load_state_dict({key: tensor.float() for key, tensor in expected.items()})
    torch.testing.assert_close(models.logits(models.load(out, torch.float32)), models.logits(plain))


@pytest.mark.parametrize("bits", [4, 8])
def test_bitsandbytes_by_transformers(bits: int, tmp_path: Path):
    """Quantised on load and saved by transformers itself; decoded as its loaded layers are."""
    bnb = pytest.importorskip("bitsandbytes.functional")
    from transformers import BitsAndBytesConfig

    models.tiny_llama(torch.bfloat16, 64, 128, 96, 2).save_pretrained(tmp_path / "plain")
    options = {"load_in_8bit": True} if bits == 8 else {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.bfloat16,
    }  # fmt: skip
    config = BitsAndBytesConfig(**options)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    expected = models.load_tensors(tmp_path / "plain")
    for key, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if bits == 4 and hasattr(weight, "quant_state"):
            expected[f"{key}.weight"] = bnb.dequantize_4bit(weight.data, weight.quant_state)
        elif bits == 8 and hasattr(weight, "SCB"):
            expected[f"{key}.weight"] = bnb.int8_vectorwise_dequant(weight.data, weight.SCB).to(torch.bfloat16)
    _, got = probe(tmp_path / "base", tmp_path / "decoded.safetensors")
    same_tensors(got, expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_conv1d_of_gpt2(bits: int, tmp_path: Path):
    """Transposed before it is quantised, and turned back."""
    bnb = pytest.importorskip("bitsandbytes.functional")
    from transformers import BitsAndBytesConfig, GPT2Config

    config = GPT2Config(n_embd=64, n_layer=1, n_head=4, vocab_size=96, n_positions=64)
    models.from_config(config, torch.bfloat16).save_pretrained(tmp_path / "plain")
    config = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    expected, turned = models.load_tensors(tmp_path / "plain"), 0
    for key, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if bits == 8 and hasattr(weight, "SCB"):
            decoded = bnb.int8_vectorwise_dequant(weight.data, weight.SCB).to(torch.bfloat16)
        elif bits == 4 and hasattr(weight, "quant_state"):
            decoded = bnb.dequantize_4bit(weight.data, weight.quant_state)
        else:
            continue
        expected[f"{key}.weight"] = decoded.t()
        turned += 1
    assert turned == 4
    _, got = probe(tmp_path / "base", tmp_path / "decoded.safetensors")
    same_tensors(got, expected)


def test_odd_and_flat_shapes_of_bitsandbytes(tmp_path: Path):
    bnb = pytest.importorskip("bitsandbytes.functional")
    stored, expected = {}, {}
    for number, shape in enumerate([(7, 13), (33,), (3, 5, 7), (96, 80)]):
        tensor = torch.randn(shape, generator=torch.Generator().manual_seed(number)).to(torch.float16)
        parts, decoded = quantised.bnb4("nf4", number % 2 == 0, 64)(tensor)
        stored |= {f"m.{number}{end}": part for end, part in parts.items()}
        expected[f"m.{number}.weight"] = decoded
    quantised.write(tmp_path / "base", stored, {}, split=True)
    _, got = probe(tmp_path / "base", tmp_path / "decoded.safetensors")
    same_tensors(got, expected)


def gpt_oss(shape: tuple[int, int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1
    codes, scales = quantised.mx_blocks(weight)
    return quantised.two_in_a_byte(codes), scales


def test_experts_of_gpt_oss(tmp_path: Path):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    stored, expected = {}, {}
    for name, shape in (("gate_up_proj", (3, 128, 96)), ("down_proj", (3, 96, 64))):
        stem = f"model.layers.0.mlp.experts.{name}"
        blocks, scales = gpt_oss(shape, len(name))
        stored |= {f"{stem}_blocks": blocks, f"{stem}_scales": scales}
        stored[f"{stem}_bias"] = expected[f"{stem}_bias"] = torch.ones(3, shape[1], dtype=torch.bfloat16)
        expected[stem] = convert_moe_packed_tensors(blocks, scales)
    config = {"quantization_config": {"quant_method": "mxfp4"}}
    quantised.write(tmp_path / "base", stored, config, split=True)
    summary, got = probe(tmp_path / "base", tmp_path / "decoded.safetensors")
    assert summary == "MXFP4, 2 tensors"
    same_tensors(got, expected)


def test_decoded_experts_of_gpt_oss_get_their_names(tmp_path: Path):
    stem = "model.layers.0.mlp.experts."
    stored = {f"{stem}{name}_blocks": torch.randn(2, 4, 6).bfloat16() for name in ("gate_up_proj", "down_proj")}
    quantised.write(tmp_path / "base", stored, {}, split=False)
    _, got = probe(tmp_path / "base", tmp_path / "decoded.safetensors")
    same_tensors(got, {name.removesuffix("_blocks"): tensor for name, tensor in stored.items()})


def test_experts_of_llama_4_by_fbgemm(tmp_path: Path):
    """Scales [E, 1, 2I] and [E, H, 1]: in both, one for each output."""
    stored, expected = {}, {}
    for name, shape in (("gate_up_proj", (3, 16, 24)), ("down_proj", (3, 12, 16)), ("square_proj", (3, 16, 16))):
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(7))
        scale = weight.abs().amax(1, keepdim=True) / 448
        codes = (weight / scale).to(quantised.F8)
        stem = f"model.layers.0.feed_forward.experts.{name}"
        stored[stem] = codes
        stored[f"{stem}_scale"] = scale if name == "gate_up_proj" else scale.reshape(3, shape[2], 1)
        expected[stem] = (codes.float() * scale).bfloat16()
    config = {"quantization_config": {"quant_method": "fbgemm_fp8"}, "dtype": "bfloat16"}
    quantised.write(tmp_path / "base", stored, config, split=True)
    _, got = probe(tmp_path / "base", tmp_path / "decoded.safetensors")
    same_tensors(got, expected)


def test_fp8_blocks_as_transformers_decodes_them(tmp_path: Path):
    base, expected = make_base(tmp_path, "fp8_blocks", split=False)
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).state_dict()
    same_tensors({name: loaded[name] for name in expected}, expected)


TORCHAO = ["int8", "int8_one_scale", "float8", "integers_of_4", "integers_of_8_and_zero_points"]


@pytest.mark.parametrize("kind", TORCHAO)
def test_torchao(kind: str, tmp_path: Path):
    pytest.importorskip("torchao")
    from torchao import quantization as ao
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    def groups(dtype: torch.dtype, mapping: ao.MappingType) -> object:
        return ao.IntxWeightOnlyConfig(weight_dtype=dtype, granularity=ao.PerGroup(32), mapping_type=mapping)

    how = {
        "int8": lambda: ao.Int8WeightOnlyConfig(version=2),
        "int8_one_scale": lambda: ao.Int8WeightOnlyConfig(version=2, granularity=ao.PerTensor()),
        "float8": lambda: ao.Float8WeightOnlyConfig(),
        "integers_of_4": lambda: groups(torch.int4, ao.MappingType.SYMMETRIC),
        "integers_of_8_and_zero_points": lambda: groups(torch.int8, ao.MappingType.ASYMMETRIC),
    }[kind]()
    model = models.tiny_llama(torch.bfloat16, 64, 128, 96, 2)
    ao.quantize_(model.model, how)
    state = {name: getattr(tensor, "data", tensor) for name, tensor in model.state_dict().items()}
    stored, _ = flatten_tensor_state_dict(state)
    expected = {name: (t.dequantize() if type(t) is not torch.Tensor else t) for name, t in state.items()}
    config = {"quantization_config": {"quant_method": "torchao"}, "dtype": "bfloat16"}
    quantised.write(tmp_path / "base", stored, config, split=True)
    summary, got = probe(tmp_path / "base", tmp_path / "decoded.safetensors")
    assert summary == "torchao, 14 tensors"
    same_tensors(got, expected)


@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "Float8WeightOnlyConfig"])
def test_torchao_by_transformers(kind: str, lorafold: Run, tmp_path: Path):
    """Quantised on load, saved by transformers itself, in several files; merged as its loaded layers are."""
    pytest.importorskip("torchao")
    from torchao import quantization as ao
    from transformers import TorchAoConfig

    models.tiny_llama(torch.bfloat16, 64, 128, 96, 2).save_pretrained(tmp_path / "plain")
    options = {"version": 2} if kind.startswith("Int8") else {}
    config = TorchAoConfig(getattr(ao, kind)(**options))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "base", max_shard_size="30KB")
    state = {name: getattr(tensor, "data", tensor) for name, tensor in model.state_dict().items()}
    expected = {name: t.dequantize() if type(t) is not torch.Tensor else t for name, t in state.items()}
    adapter = make_adapter(tmp_path, expected)
    lorafold("merge", tmp_path / "base", "-a", adapter, "-o", tmp_path / "out")
    for key, deltas in models.deltas_of([(adapter, 1.0)]).items():
        expected[key] = reference.fold(expected[key], deltas)
    same_tensors(models.load_tensors(tmp_path / "out"), expected)
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    models.load(tmp_path / "out", torch.bfloat16)

"""--save-method merged_4bit: the bytes against an emulation, and what transformers and bitsandbytes make of them."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

import bases
import bnb4
import models
import moe_models
from conftest import Run
from test_quantised_bases import make_base as make_quantised

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}

needs_bnb = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("bitsandbytes", "accelerate")),
    reason="the Python packages bitsandbytes and accelerate are missing",
)


def config_of(out: Path) -> dict:
    return json.loads((out / "config.json").read_text())


def both_ways(lorafold: Run, directory: Path, base: Path, adapter: Path, *options: str) -> dict[str, torch.Tensor]:
    """Merge to 16 bits (16/) and to 4 (out/); the tensors of the first."""
    shared = [option for option in options if option not in ("--no-double-quant",)]
    for word in ("--quant-type", "--skip"):
        while word in shared:
            at = shared.index(word)
            del shared[at : at + 2]
    lorafold("merge", base, "-a", adapter, "-o", directory / "16", *shared)
    lorafold("merge", base, "-a", adapter, "-o", directory / "out", "--save-method", "merged_4bit", *options)
    return models.load_tensors(directory / "16")


def decoded_by_bitsandbytes(layer: torch.nn.Module) -> torch.Tensor:
    """With its portable code: that for AVX-512 is wrong where a block passes the end of a row."""
    import bitsandbytes.functional as bnb

    state = layer.weight.quant_state
    absmax = state.absmax
    if state.nested:
        absmax = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
    codes = layer.weight.data.reshape(-1)
    nibbles = torch.stack([codes >> 4, codes & 15], 1).flatten()[: state.shape.numel()].int()
    wide = absmax.repeat_interleave(state.blocksize)[: state.shape.numel()]
    decoded = (state.code[nibbles] * wide).to(state.dtype).reshape(state.shape)
    if layer.in_features % state.blocksize == 0:
        assert torch.equal(decoded, bnb.dequantize_4bit(layer.weight.data, state))
    return decoded + 0  # zeros have no sign


def loads(out: Path, plain: Path, encoded: set[str], auto: type = transformers.AutoModelForCausalLM,
          turned: bool = False) -> None:  # fmt: skip
    """As transformers loads it, every quantised layer is quantised and means what the file says."""
    from bitsandbytes.nn import Linear4bit

    model, told = auto.from_pretrained(out, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"], told
    stored = models.load_tensors(out)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}
    assert {f"{name}.weight" for name in layers} == encoded
    reference = auto.from_pretrained(plain, dtype=torch.float32)
    for name, layer in layers.items():
        weight = bnb4.decode(stored, f"{name}.weight")
        bnb4.same_bits(decoded_by_bitsandbytes(layer), weight + 0, name)
        reference.get_submodule(name).weight.data = weight.float().t() if turned else weight.float()
    if any(layer.out_features % 32 for layer in layers.values()):
        return  # bitsandbytes 0.50 asks for that in its forward pass on a processor
    tokens = torch.arange(1, 33).reshape(2, 16)
    with torch.no_grad():
        got = model(input_ids=tokens).logits.float()
        exact = reference(input_ids=tokens).logits
    assert torch.isfinite(got).all()
    assert (got - exact).abs().max() < 0.05 * exact.abs().max()  # it computes in 16 bits


def near(out: Path, plain: Path, auto: type = transformers.AutoModelForCausalLM) -> None:
    """Four bits are four bits: the logits of the 16-bit merge, nearly."""
    tokens = torch.arange(1, 33).reshape(2, 16)
    with torch.no_grad():
        got = auto.from_pretrained(out)(input_ids=tokens).logits.float().flatten()
        wanted = auto.from_pretrained(plain, dtype=torch.float32)(input_ids=tokens).logits.flatten()
    assert torch.nn.functional.cosine_similarity(got, wanted, dim=0) > 0.9


def pair(directory: Path, config: Callable[[], transformers.PretrainedConfig], dtype: torch.dtype, **lora: object):
    base, adapter = directory / "base", directory / "adapter"
    models.from_config(config(), dtype).save_pretrained(base, max_shard_size="60KB")
    options = {"r": 4, "lora_alpha": 6, "target_modules": LINEAR} | lora
    models.make_adapter(base, adapter, torch.float32, 3, **options)
    return base, adapter


def llama(**changes: object) -> Callable[[], transformers.PretrainedConfig]:
    return lambda: bases.llama(intermediate_size=128, **changes)


@needs_bnb
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_llama(dtype: str, tied: bool, lorafold: Run, tmp_path: Path):
    base, adapter = pair(tmp_path, llama(tie_word_embeddings=tied), DTYPES[dtype])
    merged = both_ways(lorafold, tmp_path, base, adapter)
    encoded = bnb4.check(tmp_path / "out", merged)
    assert encoded == {name for name in merged if name.endswith("_proj.weight")}
    quantisation = config_of(tmp_path / "out")["quantization_config"]
    assert sorted(quantisation["llm_int8_skip_modules"]) == ["lm_head", "model.embed_tokens"]
    assert quantisation["bnb_4bit_quant_type"] == "nf4" and quantisation["bnb_4bit_use_double_quant"]
    loads(tmp_path / "out", tmp_path / "16", encoded)
    near(tmp_path / "out", tmp_path / "16")
    lorafold("verify", tmp_path / "out")


@needs_bnb
@pytest.mark.parametrize("options", [["--quant-type", "fp4"], ["--no-double-quant"],
                                     ["--quant-type", "fp4", "--no-double-quant"]], ids=" ".join)  # fmt: skip
def test_codes_and_nesting(options: list[str], lorafold: Run, tmp_path: Path):
    base, adapter = pair(tmp_path, llama(), torch.bfloat16)
    merged = both_ways(lorafold, tmp_path, base, adapter, *options)
    kind, nested = "fp4" if "fp4" in options else "nf4", "--no-double-quant" not in options
    encoded = bnb4.check(tmp_path / "out", merged, kind, nested)
    loads(tmp_path / "out", tmp_path / "16", encoded)
    quantisation = config_of(tmp_path / "out")["quantization_config"]
    assert (quantisation["bnb_4bit_quant_type"], quantisation["bnb_4bit_use_double_quant"]) == (kind, nested)
    manifest = json.loads((tmp_path / "out" / "lorafold.json").read_text())["options"]
    assert (manifest["quant_type"], manifest["double_quant"]) == (kind, nested)


@needs_bnb
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_dtype(dtype: str, lorafold: Run, tmp_path: Path):
    base, adapter = pair(tmp_path, llama(), torch.float16 if dtype == "bf16" else torch.bfloat16)
    merged = both_ways(lorafold, tmp_path, base, adapter, "--dtype", dtype)
    encoded = bnb4.check(tmp_path / "out", merged)
    loads(tmp_path / "out", tmp_path / "16", encoded)
    assert config_of(tmp_path / "out")["quantization_config"]["bnb_4bit_compute_dtype"] == bnb4.NAMES[DTYPES[dtype]]


@needs_bnb
def test_skip(lorafold: Run, tmp_path: Path):
    base, adapter = pair(tmp_path, llama(), torch.bfloat16)
    options = ["--skip", "down_proj", "--skip", "model.layers.1.self_attn.q_proj", "--skip", "layers.0.self_attn"]
    merged = both_ways(lorafold, tmp_path, base, adapter, *options)
    encoded = bnb4.check(tmp_path / "out", merged)
    kept = {name.removesuffix(".weight") for name in merged if name.endswith("_proj.weight")} - {
        name.removesuffix(".weight") for name in encoded
    }
    assert kept == {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj", "model.layers.1.self_attn.q_proj",
                    *(f"model.layers.0.self_attn.{name}_proj" for name in "qkvo")}  # fmt: skip
    loads(tmp_path / "out", tmp_path / "16", encoded)


@needs_bnb
@pytest.mark.parametrize("shard", ["1000", "3000"])
def test_companions_in_another_file(shard: str, lorafold: Run, tmp_path: Path):
    base, adapter = pair(tmp_path, llama(), torch.bfloat16)
    merged = both_ways(lorafold, tmp_path, base, adapter, "--max-shard-size", shard)
    encoded = bnb4.check(tmp_path / "out", merged)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = index["weight_map"]
    assert any(files[name] != files[f"{name}.absmax"] for name in encoded)
    stored = models.load_tensors(tmp_path / "out")
    assert files.keys() == stored.keys()
    assert index["metadata"]["total_parameters"] == sum(tensor.numel() for tensor in merged.values())
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in stored.values())
    loads(tmp_path / "out", tmp_path / "16", encoded)


@pytest.mark.parametrize("sizes", [(80, 96, 4, 3), (96, 80, 4, 3), (36, 4304, 2, 5), (35, 13, 5, 7)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes(sizes: tuple[int, int, int, int], dtype: str, lorafold: Run, tmp_path: Path):
    """Blocks that run through rows, cut last blocks, odd numbers of elements."""
    hidden, inner, heads, vocab = sizes
    tensors = {
        "model.layers.0.mlp.gate_proj.weight": (inner, hidden),
        "model.layers.0.mlp.down_proj.weight": (hidden, inner),
        "model.layers.0.mlp.up_proj.weight": (1, 1),
        "model.layers.0.self_attn.q_proj.weight": (heads, vocab),
        "model.layers.0.self_attn.k_proj.weight": (64, 300),
    }
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(hidden)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir(), adapter.mkdir()
    data = {name: (torch.randn(shape, generator=generator) * 0.05).to(DTYPES[dtype]) for name, shape in tensors.items()}
    data["model.layers.0.self_attn.k_proj.weight"][20:40] = 0  # blocks of zeros
    save_file(data, base / "model.safetensors", metadata={"format": "pt"})
    (base / "config.json").write_text('{"model_type": "llama"}')
    factors = {}
    for name, (rows, cols) in list(tensors.items())[:2]:
        path = f"base_model.model.{name.removesuffix('.weight')}"
        factors[f"{path}.lora_A.weight"] = torch.randn(3, cols, generator=generator) * 0.1
        factors[f"{path}.lora_B.weight"] = torch.randn(rows, 3, generator=generator) * 0.1
    save_file(factors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["gate_proj", "down_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    merged = both_ways(lorafold, tmp_path, base, adapter)
    assert bnb4.check(tmp_path / "out", merged) == set(tensors)


@needs_bnb
def test_biases_of_qwen2(lorafold: Run, tmp_path: Path):
    base, adapter = pair(tmp_path, lambda: transformers.Qwen2Config(**models.GROUPED | {"intermediate_size": 128}),
                         torch.bfloat16)  # fmt: skip
    merged = both_ways(lorafold, tmp_path, base, adapter)
    loads(tmp_path / "out", tmp_path / "16", bnb4.check(tmp_path / "out", merged))


@needs_bnb
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "granitemoe", "deepseek_v3"])
def test_experts_stay(family: str, lorafold: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(moe_models, "DENSE", 128)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    moe_models.make_base(family, base, torch.bfloat16)
    targets = ["o_proj", "kv_b_proj"] if family == "deepseek_v3" else ["q_proj", "o_proj"]
    moe_models.make_adapter(base, adapter, target_modules=targets)
    merged = both_ways(lorafold, tmp_path, base, adapter)
    encoded = bnb4.check(tmp_path / "out", merged)
    assert encoded and not [name for name in encoded if "experts." in name.replace("shared_experts.", "")]
    assert not [name for name in encoded if name.endswith(("gate.weight", "router.weight"))]
    skipped = config_of(tmp_path / "out")["quantization_config"]["llm_int8_skip_modules"]
    assert len(skipped) < 10, skipped  # not every expert by its name
    loads(tmp_path / "out", tmp_path / "16", encoded)


def quantise(plain: Path, out: Path, **options: object) -> None:
    """By transformers and bitsandbytes."""
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, **options)
    model = transformers.AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, dtype=torch.bfloat16)
    model.save_pretrained(out, max_shard_size="30KB")


@needs_bnb
@pytest.mark.parametrize("skip", [None, ["lm_head", "model.layers.1", "up_proj"]], ids=["default", "listed"])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_base_of_bitsandbytes(kind: str, skip: list[str] | None, lorafold: Run, tmp_path: Path):
    plain, adapter = pair(tmp_path, llama(), torch.bfloat16)
    base = tmp_path / "quantised"
    quantise(plain, base, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=True, llm_int8_skip_modules=skip)
    stored = models.load_tensors(base)
    merged = both_ways(lorafold, tmp_path, base, adapter)
    encoded = bnb4.check(tmp_path / "out", merged)
    assert encoded == {name.split(".quant_state.")[0] for name in stored if ".quant_state." in name}
    loads(tmp_path / "out", tmp_path / "16", encoded)
    manifest = json.loads((tmp_path / "out" / "lorafold.json").read_text())
    assert manifest["options"]["base_numerics"] == "dequantised"


@needs_bnb
def test_base_of_fp8(lorafold: Run, tmp_path: Path):
    base, _ = make_quantised(tmp_path, "fp8_blocks", split=True)
    adapter = tmp_path / "adapter"
    models.tiny_llama(torch.bfloat16, 64, 128, 96, 2).save_pretrained(tmp_path / "like")
    models.make_adapter(tmp_path / "like", adapter, torch.float32, 3, r=4, target_modules=LINEAR)
    merged = both_ways(lorafold, tmp_path, base, adapter)
    encoded = bnb4.check(tmp_path / "out", merged)
    assert len(encoded) == 14
    loads(tmp_path / "out", tmp_path / "16", encoded)


@needs_bnb
@pytest.mark.parametrize("lora", [
    {"use_dora": True},
    {"target_modules": ["embed_tokens", *LINEAR], "use_dora": True},
    {"target_modules": ["lm_head", "q_proj"]},
    {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    {"target_modules": ["q_proj"], "modules_to_save": ["down_proj"]},
    {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 5]}},
    {"target_modules": LINEAR, "layer_replication": [[0, 2], [1, 2]]},
], ids=["dora", "embedding", "head", "saved_head", "saved_linear", "tokens", "replicated"])  # fmt: skip
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_kinds_of_adapters(lora: dict, tied: bool, lorafold: Run, tmp_path: Path):
    base, adapter = pair(tmp_path, llama(tie_word_embeddings=tied), torch.bfloat16, **lora)
    merged = both_ways(lorafold, tmp_path, base, adapter)
    encoded = bnb4.check(tmp_path / "out", merged)
    saved = "down_proj" if lora.get("modules_to_save") == ["down_proj"] else "-"
    assert encoded == {name for name in merged if name.endswith("_proj.weight") and saved not in name}
    loads(tmp_path / "out", tmp_path / "16", encoded)


@needs_bnb
def test_classifier(lorafold: Run, tmp_path: Path):
    config = llama(num_labels=3)()
    torch.manual_seed(5)
    model = transformers.AutoModelForSequenceClassification.from_config(config).to(torch.bfloat16)
    models.randomise(model, 5)
    model.save_pretrained(tmp_path / "base")
    import peft

    trained = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj"]))
    trained.save_pretrained(tmp_path / "adapter")
    merged = both_ways(lorafold, tmp_path, tmp_path / "base", tmp_path / "adapter")
    encoded = bnb4.check(tmp_path / "out", merged)
    assert "score.weight" not in encoded
    loads(tmp_path / "out", tmp_path / "16", encoded, transformers.AutoModelForSequenceClassification)


def gpt2(directory: Path, dtype: torch.dtype, width: int = 64, **lora: object) -> tuple[Path, Path]:
    config = transformers.GPT2Config(n_embd=width, n_layer=2, n_head=4, n_positions=64, vocab_size=96)
    options = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True} | lora
    return pair(directory, lambda: config, dtype, **options)


def upright(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of Conv1D layers as bitsandbytes holds them: [out, in]."""
    modules = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {name: tensor.t().contiguous() if name.endswith(modules) else tensor for name, tensor in tensors.items()}


@needs_bnb
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_conv1d(dtype: str, tied: bool, lorafold: Run, tmp_path: Path):
    """Transposed before they are quantised, whether an adapter changes them or not."""
    base, adapter = gpt2(tmp_path, DTYPES[dtype], modules_to_save=None if tied else ["lm_head"])
    merged = both_ways(lorafold, tmp_path, base, adapter)
    encoded = bnb4.check(tmp_path / "out", upright(merged))
    assert len(encoded) == 8
    loads(tmp_path / "out", tmp_path / "16", encoded, turned=True)
    near(tmp_path / "out", tmp_path / "16")
    lorafold("verify", tmp_path / "out")


@pytest.mark.parametrize("options", [["--quant-type", "fp4", "--no-double-quant"], ["--dtype", "f32"],
                                     ["--skip", "h.1.mlp"]], ids=" ".join)  # fmt: skip
def test_conv1d_and_options(options: list[str], lorafold: Run, tmp_path: Path):
    """Rows that blocks do not divide, and other codes, dtypes and layers."""
    base, adapter = gpt2(tmp_path, torch.bfloat16, width=80)
    merged = both_ways(lorafold, tmp_path, base, adapter, *options)
    kind, nested = ("fp4", False) if "fp4" in options else ("nf4", True)
    kept = {name: tensor for name, tensor in merged.items() if "--skip" in options and "h.1.mlp" in name}
    encoded = bnb4.check(tmp_path / "out", upright(merged) | kept, kind, nested)
    assert len(encoded) == (6 if "--skip" in options else 8)


def test_conv1d_that_an_adapter_saves_whole(lorafold: Run, tmp_path: Path):
    base, adapter = gpt2(tmp_path, torch.bfloat16, modules_to_save=["c_fc"], target_modules=["c_attn"])
    merged = both_ways(lorafold, tmp_path, base, adapter)
    encoded = bnb4.check(tmp_path / "out", upright(merged) | {n: t for n, t in merged.items() if "c_fc" in n})
    assert len(encoded) == 6 and not [name for name in encoded if "c_fc" in name]


@needs_bnb
@pytest.mark.parametrize("bits", [4, 8])
def test_conv1d_of_a_quantised_base(bits: int, lorafold: Run, tmp_path: Path):
    plain, adapter = gpt2(tmp_path, torch.bfloat16)
    base = tmp_path / "quantised"
    config = transformers.BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    model = transformers.AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, dtype=torch.bfloat16)
    model.save_pretrained(base)
    merged = both_ways(lorafold, tmp_path, base, adapter)
    encoded = bnb4.check(tmp_path / "out", upright(merged))
    assert len(encoded) == 8
    loads(tmp_path / "out", tmp_path / "16", encoded, turned=True)


@needs_bnb
def test_conv1d_with_dora(lorafold: Run, tmp_path: Path):
    """Norms of columns are summed as those of rows: a last bit may differ before it is quantised."""
    base, adapter = gpt2(tmp_path, torch.float32, use_dora=True)
    merged = upright(both_ways(lorafold, tmp_path, base, adapter, "--no-double-quant"))
    stored = models.load_tensors(tmp_path / "out")
    for name in [name.split(".quant_state.")[0] for name in stored if ".quant_state." in name]:
        decoded, wanted = bnb4.decode(stored, name), merged[name]
        assert decoded.shape == wanted.shape
        step = stored[f"{name}.absmax"].repeat_interleave(64)[: wanted.numel()].reshape(wanted.shape)
        assert ((decoded - wanted).abs() <= 0.16 * step).all(), name  # half of the widest gap of NF4


def test_roundtrip_of_conv1d_is_refused(lorafold: Run, tmp_path: Path, nothing_left: None):
    base, adapter = gpt2(tmp_path, torch.bfloat16)
    done = lorafold("merge", base, "-a", adapter, "-o", tmp_path / "out", "--base-numerics", "nf4-roundtrip", status=3)
    assert "Conv1D" in done.stderr and "gpt2" in done.stderr


def test_memory_and_threads_make_no_difference(lorafold: Run, tmp_path: Path):
    base, adapter = pair(tmp_path, llama(), torch.bfloat16, use_dora=True)
    ways = {"a": [], "b": ["--threads", "1", "--memory", "64MiB", "--kernels", "scalar", "--io", "threads"]}
    for name, options in ways.items():
        lorafold("merge", base, "-a", adapter, "-o", tmp_path / name, "--save-method", "merged_4bit", *options)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name

"""`--save-method same`: what is written in the base's own scheme, against the definition of each format."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import models
import moe_models
import quantised
import reference
from conftest import Run
from quantised import E2M1, F8
from quantised_schemes import SCHEMES
from test_quantised_bases import make_adapter, make_base, probe, same_tensors

E8M0 = torch.float8_e8m0fnu
BLOCKS = {
    "fp8_blocks": (32, 32), "fp8_blocks_bf16": (32, 32), "fp8_blocks_e8m0": (32, 32), "fp8_blocks_u8": (32, 32),
    "fp8_blocks_ragged": (24, 40), "fp8_blocks_usual": (128, 128), "fp8_tensor_static": (0, 0),
    "fp8_rows_fbgemm": (1, 0), "fp8_modelopt": (0, 0), "mxfp8": (1, 32), "ct_fp8_tensor": (0, 0),
    "ct_fp8_channel": (1, 0), "ct_fp8_group": (1, 16), "ct_fp8_block": (24, 40), "ct_mxfp8": (1, 32),
    "int8_rows_bnb": (1, 0), "ct_int8_channel": (1, 0), "ct_int8_tensor": (0, 0),
    "experts_in_blocks": (32, 32), "experts_by_columns": (0, 1),
    "nvfp4_modelopt": (1, 16), "ct_nvfp4": (1, 16), "fp4_deepseek": (1, 32), "ct_mxfp4": (1, 32),
}  # fmt: skip
SCALES = (".weight_scale_inv", ".weight_scale", ".scale", ".SCB")
CODES = (".weight", ".weight_packed")


def find(tensors: dict[str, torch.Tensor], stem: str, endings: tuple[str, ...]) -> str:
    return next(stem + end for end in endings if stem + end in tensors)


def stored_scale(tensors: dict[str, torch.Tensor], stem: str) -> torch.Tensor:
    """As fp32; powers of two of a byte each as well."""
    scale = tensors[find(tensors, stem, SCALES)]
    if scale.dtype in (torch.uint8, E8M0):
        return torch.ldexp(torch.ones(()), scale.view(torch.uint8).int() - 127)
    return scale.float()


def step_of(tensors: dict[str, torch.Tensor], stem: str) -> torch.Tensor:
    scale = stored_scale(tensors, stem)
    if f"{stem}.weight_scale_2" in tensors:
        return scale * tensors[f"{stem}.weight_scale_2"]
    if f"{stem}.weight_global_scale" in tensors:
        return scale / tensors[f"{stem}.weight_global_scale"]
    return scale


def wide(step: torch.Tensor, name: str, shape: torch.Size) -> torch.Tensor:
    rows, cols = BLOCKS[name]
    block = (rows or shape[0], cols or shape[1])
    grid = (-(-shape[0] // block[0]), -(-shape[1] // block[1]))
    return quantised.spread(step.reshape(grid), block, shape)


def block_amax(values: torch.Tensor, name: str) -> torch.Tensor:
    rows, cols = BLOCKS[name]
    parts = [
        [part.abs().max() for part in line.split(cols or values.shape[1], 1)]
        for line in values.split(rows or values.shape[0], 0)
    ]
    return torch.tensor(parts)


def numbers(codes: torch.Tensor) -> torch.Tensor:
    """Of codes of four bits, in units of a step."""
    packed = codes.view(torch.uint8)
    return E2M1[torch.stack([packed & 15, packed >> 4], -1).flatten(1).int()]


def nearest_e2m1(v: torch.Tensor) -> torch.Tensor:
    """Ties to the even code, as the format rounds."""
    magnitude = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    distance = (v.abs().clamp(max=6).unsqueeze(-1) - magnitude).abs()
    even_first = distance.double() + torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]) * 1e-12
    return magnitude[even_first.argmin(-1)] * v.sign()


def check_weight(name: str, base: dict, out: dict, stem: str, merged: torch.Tensor, exact: torch.Tensor) -> int:
    """`merged` in fp32, `exact` in float64.  Returns how many scales are new."""
    codes = out[find(out, stem, CODES)]
    step = wide(step_of(out, stem), name, merged.shape)
    amax = block_amax(merged, name)
    before = step_of(base, stem).reshape(amax.shape)
    after = step_of(out, stem).reshape(amax.shape)
    if name == "int8_rows_bnb":
        half = merged.half().float()
        factor = torch.full_like(step, 127.0) / step  # "127 / step" is a product with a reciprocal in torch
        assert torch.equal(codes, (half * factor).round().clamp(-127, 127).to(torch.int8))
        amax, most = amax.half().float(), 1.0
        got, unit, largest = codes.double() * step.double() / 127, step / 127, 1.0
        slack = half.abs() * 2.0**-11
        assert torch.equal(after, torch.maximum(before, amax))
    elif name.startswith("ct_int8"):
        assert torch.equal(codes, (merged / step).round().clamp(-128, 127).to(torch.int8))
        got, unit, largest, most, slack = codes.double() * step.double(), step, 127.0, 127.5, 0.0
    elif codes.dtype == F8:
        assert torch.equal(codes.float(), (merged / step).clamp(-448, 448).to(F8).float())
        v = codes.double()
        _, exponent = torch.frexp(codes.float())
        unit = torch.ldexp(step, (exponent - 4).clamp(min=-9))
        got, largest, most, slack = v * step.double(), 448.0, 448.0, 0.0
    else:
        v = numbers(codes)
        assert torch.equal(v, nearest_e2m1(merged / step))
        unit = step * torch.where(v.abs() >= 4, 2.0, torch.where(v.abs() >= 2, 1.0, 0.5))
        got, largest, slack = v.double() * step.double(), 6.0, 0.0
        most = 6.0 if "nvfp4" in name else 7.0
    # Where the exact value passes the bound of two codes by less than the fp32 sum is off.
    allowed = 0.5 * unit.double() + slack + exact.abs().max() * 2.0**-20
    assert ((got - exact).abs() <= allowed).all(), (stem, ((got - exact).abs() / unit).max())
    kept = amax <= most * before
    assert torch.equal(after[kept], before[kept])
    if kept.all():
        scale = find(base, stem, SCALES)
        assert as_bytes({scale: out[scale]}) == as_bytes({scale: base[scale]})
    new = ~kept
    assert (after[new] >= before[new]).all()
    # The new scale is the least that will do, but for its own rounding, and powers of two.
    assert (amax[new] / after[new] > largest / 2.3).all()
    return int(new.sum())


def as_bytes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple]:
    return {
        name: (tensor.dtype, tensor.shape, tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("split", [False, True], ids=["one_file", "two_shards"])
@pytest.mark.parametrize("name", [name for name in BLOCKS if name in SCHEMES])
def test_base_is_written_back(name: str, split: bool, lorafold: Run, tmp_path: Path):
    base, decoded = make_base(tmp_path, name, split)
    adapter, out = make_adapter(tmp_path, decoded), tmp_path / "out"
    # The global scale of NVFP4 is kept, and its largest block is as large as can be.
    weight = 0.02 if "nvfp4" in name else 1.0
    lorafold("merge", base, "-a", f"{adapter}:{weight}", "-o", out, "--save-method", "same")
    before, after = models.load_tensors(base), models.load_tensors(out)
    assert list(before) == list(after)
    deltas = models.deltas_of([(adapter, weight)])
    touched, new = set(), 0
    for key in deltas:
        stem = key.removesuffix(".weight")
        touched |= {find(before, stem, CODES), find(before, stem, SCALES)}
        merged = reference.fold(decoded[key], deltas[key], torch.float32)
        exact = torch.from_numpy(reference.exact_sum(decoded[key], deltas[key]))
        assert after[find(after, stem, CODES)].shape == before[find(before, stem, CODES)].shape
        new += check_weight(name, before, after, stem, merged, exact)
    assert 0 < new, "no block has grown: the test says nothing of new scales"
    untouched = [key for key in before if key not in touched]
    assert as_bytes({key: after[key] for key in untouched}) == as_bytes({key: before[key] for key in untouched})
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    for file in base.glob("hf_quant_config.json"):
        assert (out / file.name).read_bytes() == file.read_bytes()
    # What decoding makes of it, as any base: the program reads what it has written.
    summary, read = probe(out, tmp_path / "read.safetensors")
    assert summary == f"{SCHEMES[name].summary}, 14 tensors"
    assert read.keys() == decoded.keys()
    if split:
        assert {file.name for file in out.glob("model*")} == {file.name for file in base.glob("model*")}
    verify = lorafold("verify", out)
    assert verify.returncode == 0


def test_nvfp4_beyond_its_global_scale(lorafold: Run, tmp_path: Path, nothing_left: None):
    base, decoded = make_base(tmp_path, "nvfp4_modelopt", split=False)
    adapter = make_adapter(tmp_path, decoded)
    words = ["merge", base, "-a", f"{adapter}:30", "-o", tmp_path / "out", "--save-method", "same"]
    done = lorafold(*words, status=3)
    assert "global scale" in done.stderr and "merged_16bit" in done.stderr


REFUSED = {
    "nf4": "merged_4bit", "fp4_nested": "merged_4bit", "gptq_4": "GPTQ is a calibration problem",
    "awq": "AWQ is a calibration problem", "hqq_4": "HQQ is a calibration problem",
    "mlx_4": "MLX is a calibration problem", "ct_w4a16": "packed integers", "ct_int8_zero_points": "zero points",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, lorafold: Run, tmp_path: Path, nothing_left: None):
    base, decoded = make_base(tmp_path, name, split=False)
    adapter = make_adapter(tmp_path, decoded)
    done = lorafold("merge", base, "-a", adapter, "-o", tmp_path / "out", "--save-method", "same", status=3)
    assert REFUSED[name] in done.stderr and "--save-method merged_" in done.stderr


def test_dtype_is_refused(lorafold: Run, tmp_path: Path, nothing_left: None):
    base, decoded = make_base(tmp_path, "fp8_blocks", split=False)
    adapter = make_adapter(tmp_path, decoded)
    words = ["merge", base, "-a", adapter, "-o", tmp_path / "out", "--save-method", "same", "--dtype", "f16"]
    assert "--dtype" in lorafold(*words, status=2).stderr


def test_16_bit_base(lorafold: Run, tmp_path: Path):
    models.tiny_llama(torch.bfloat16, 64, 128, 96, 2).save_pretrained(tmp_path / "base")
    models.make_adapter(tmp_path / "base", tmp_path / "adapter", torch.float32, 3, r=6, target_modules=["q_proj"])
    for method in ("same", "merged_16bit"):
        done = lorafold(
            "merge", tmp_path / "base", "-a", tmp_path / "adapter", "-o", tmp_path / method, "--save-method", method
        )
        assert ("is merged_16bit" in done.stderr) == (method == "same")
    files = [(tmp_path / method / "model.safetensors").read_bytes() for method in ("same", "merged_16bit")]
    assert files[0] == files[1]


def logits(model: torch.nn.Module) -> torch.Tensor:
    """In the dtypes that it has: packages decode when they compute."""
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 33).reshape(2, 16)).logits.float()


@pytest.mark.parametrize("name", ["fp8_blocks", "ct_fp8_channel", "ct_int8_channel", "ct_mxfp4"])
def test_other_packages_read_it(name: str, lorafold: Run, tmp_path: Path):
    """Loaded by transformers, which decodes with the package of the format."""
    base, decoded = make_base(tmp_path, name, split=False)
    adapter, out = make_adapter(tmp_path, decoded), tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out, "--save-method", "same")
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    _, read = probe(out, tmp_path / "read.safetensors")
    if name == "fp8_blocks":
        state = loaded.state_dict()
        same_tensors({key: state[key] for key in read}, read)
        return
    plain = models.tiny_llama(torch.bfloat16, 64, 128, 96, 2)
    plain.load_state_dict({key: tensor.to(torch.bfloat16) for key, tensor in read.items()})
    got, wanted = logits(loaded), logits(plain)
    assert (got - wanted).abs().max() <= 0.02 * wanted.abs().max()


def test_bitsandbytes_reads_its_rows(lorafold: Run, tmp_path: Path):
    """It rounds what weights are multiplied with as well, so the weights themselves are looked at."""
    bnb = pytest.importorskip("bitsandbytes.functional")
    base, decoded = make_base(tmp_path, "int8_rows_bnb", split=False)
    adapter, out = make_adapter(tmp_path, decoded), tmp_path / "out"
    lorafold("merge", base, "-a", adapter, "-o", out, "--save-method", "same")
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16)
    _, read = probe(out, tmp_path / "read.safetensors")
    for key in (key for key in read if key.endswith("_proj.weight")):
        weight = loaded.get_submodule(key.removesuffix(".weight")).weight
        scale = weight.SCB if weight.SCB is not None else weight.state.SCB
        assert torch.equal(bnb.int8_vectorwise_dequant(weight.data, scale).to(torch.bfloat16), read[key])


def quantise_experts(base: Path, name: str) -> dict[str, torch.Tensor]:
    """Experts of three dimensions in FP8; all tensors as they are decoded."""
    by_columns = name == "experts_by_columns"
    stored, decoded = {}, {}
    for key, tensor in models.load_tensors(base).items():
        stored[key] = decoded[key] = tensor
        if tensor.dim() != 3:
            continue
        pack = quantised.fp8(BLOCKS[name], torch.float32, ".scale")
        parts = [pack(expert) for expert in tensor]
        scale = torch.stack([part[0][".scale"] for part in parts])
        if by_columns and "down_proj" in key:
            scale = scale.transpose(1, 2)
        stored[key] = torch.stack([part[0][".weight"] for part in parts])
        stored[key + ("_scale" if by_columns else "_scale_inv")] = scale.contiguous()
        decoded[key] = torch.stack([part[1] for part in parts])
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fbgemm_fp8"} if by_columns else quantised.block_config(32, 32)
    (base / "config.json").write_text(json.dumps(config, indent=2))
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    return decoded


@pytest.mark.parametrize(
    ("name", "family"), [("experts_in_blocks", "granitemoe"), ("experts_by_columns", "llama4_text")]
)
def test_fused_experts(name: str, family: str, lorafold: Run, tmp_path: Path):
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    moe_models.make_base(family, base, torch.bfloat16)
    moe_models.make_adapter(base, adapter, target_modules=["q_proj"], target_parameters=moe_models.PARAMETERS)
    decoded = quantise_experts(base, name)
    lorafold("merge", base, "-a", adapter, "-o", out, "--save-method", "same")
    before, after = models.load_tensors(base), models.load_tensors(out)
    assert list(before) == list(after)
    new, experts = 0, 0
    for part in moe_models.parts_of(decoded, adapter):
        if part.expert is None:
            assert torch.equal(after[part.name], reference.fold(decoded[part.name], [part.delta]))
            continue
        suffix = "_scale" if name == "experts_by_columns" else "_scale_inv"
        one = [
            {"m.weight": tensors[part.name][part.expert], "m.weight_scale": tensors[part.name + suffix][part.expert]}
            for tensors in (before, after)
        ]
        weight = decoded[part.name][part.expert]
        merged = reference.fold(weight, [part.delta], torch.float32)
        exact = torch.from_numpy(reference.exact_sum(weight, [part.delta]))
        new += check_weight(name, *one, "m", merged, exact)
        experts += 1
    assert experts >= 2 * moe_models.EXPERTS and new > 0


def quantise_gpt_oss(base: Path) -> dict[str, torch.Tensor]:
    """Experts as the published models have them; all tensors as they are decoded."""
    stored, decoded = {}, {}
    for key, tensor in models.load_tensors(base).items():
        if tensor.dim() != 3:
            stored[key] = decoded[key] = tensor
            continue
        codes, scales = quantised.mx_blocks(tensor.transpose(1, 2))
        stored |= {f"{key}_blocks": quantised.two_in_a_byte(codes), f"{key}_scales": scales}
        wide = E2M1[codes.int()] * torch.ldexp(torch.ones(()), scales.int() - 127).unsqueeze(-1)
        decoded[key] = wide.flatten(2).transpose(1, 2).contiguous().bfloat16()
    config = json.loads((base / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
    (base / "config.json").write_text(json.dumps(config))
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    return decoded


@pytest.mark.parametrize("weight", [1.0, 40.0], ids=["scales_stay", "scales_grow"])
@pytest.mark.parametrize("parameters", [moe_models.PARAMETERS, ["experts.down_proj"]], ids=["both", "one"])
def test_experts_of_gpt_oss(
    parameters: list[str], weight: float, lorafold: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The codes lie transposed to the weight, one matrix after the other."""
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    monkeypatch.setattr(moe_models, "WIDTH", 96)
    moe_models.make_base("gpt_oss", base, torch.bfloat16)
    moe_models.make_adapter(base, adapter, target_modules=["q_proj"], target_parameters=parameters)
    decoded = quantise_gpt_oss(base)
    lorafold("merge", base, "-a", f"{adapter}:{weight}", "-o", out, "--save-method", "same")
    before, after = models.load_tensors(base), models.load_tensors(out)
    assert list(before) == list(after)
    changed, new = set(), 0
    for part in moe_models.parts_of(decoded, adapter):
        delta = dataclasses.replace(part.delta, scale=part.delta.scale * weight)
        if part.expert is None:
            assert torch.equal(after[part.name], reference.fold(decoded[part.name], [delta]))
            changed.add(part.name)
            continue
        one = [
            {
                "m.weight_packed": tensors[f"{part.name}_blocks"][part.expert].flatten(1),
                "m.weight_scale": tensors[f"{part.name}_scales"][part.expert],
            }
            for tensors in (before, after)
        ]
        old = decoded[part.name][part.expert]
        merged = reference.fold(old, [delta], torch.float32).t().contiguous()
        exact = torch.from_numpy(reference.exact_sum(old, [delta])).t()
        new += check_weight("ct_mxfp4", *one, "m", merged, exact)
        changed |= {f"{part.name}_blocks", f"{part.name}_scales"}
    assert len(changed) >= 2 * 2 * len(parameters) and (new > 0 or weight == 1.0)
    same = [key for key in before if key not in changed]
    assert as_bytes({key: after[key] for key in same}) == as_bytes({key: before[key] for key in same})
    if len(parameters) == 1:
        assert sum("gate_up_proj_blocks" in key for key in same) == 2
    # Experts in several blocks of the output, read in any order, with the least of everything.
    again = tmp_path / "again"
    lorafold("merge", out, "-a", adapter, "-o", again, "--save-method", "same", "--threads", "1")
    lorafold("merge", out, "-a", adapter, "-o", tmp_path / "other", "--save-method", "same", "--kernels", "scalar")
    files = [(path / "model.safetensors").read_bytes() for path in (again, tmp_path / "other")]
    assert files[0] == files[1]


@pytest.mark.parametrize("dora", [False, True], ids=["plain", "dora"])
def test_conv1d_of_llm_int8(dora: bool, lorafold: Run, tmp_path: Path):
    """GPT-2: the weights [in, out] were turned before they became rows of codes."""
    config = models.transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=96, n_positions=64)
    plain, base, adapter, out = (tmp_path / name for name in ("plain", "base", "adapter", "out"))
    models.from_config(config, torch.bfloat16).save_pretrained(plain)
    stored, decoded = {}, {}
    for key, tensor in models.load_tensors(plain).items():
        stored[key] = decoded[key] = tensor
        if key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            parts, turned = quantised.bnb8(tensor.t().contiguous())
            stored.pop(key)
            stored |= {key.removesuffix(".weight") + end: part for end, part in parts.items()}
            decoded[key] = turned.t().contiguous()
    quantisation = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    quantised.write(base, stored, json.loads((plain / "config.json").read_text()) | {"quantization_config": quantisation}, False)
    save_file(decoded, plain / "model.safetensors", metadata={"format": "pt"})
    targets = {"r": 4, "lora_alpha": 6, "target_modules": ["c_attn", "c_fc", "mlp.c_proj"], "fan_in_fan_out": True}
    models.make_adapter(plain, adapter, torch.float32, 4, use_dora=dora, **targets)
    lorafold("merge", base, "-a", adapter, "-o", out, "--save-method", "same")
    lorafold("merge", plain, "-a", adapter, "-o", tmp_path / "wide", "--dtype", "f32")
    before, after, wide = (models.load_tensors(path) for path in (base, out, tmp_path / "wide"))
    assert list(before) == list(after)
    changed = [key for key in wide if not torch.equal(wide[key], decoded[key].float())]
    assert len(changed) == 6
    for key in changed:
        merged = wide[key].t().contiguous()
        check_weight("int8_rows_bnb", before, after, key.removesuffix(".weight"), merged, merged.double())


def test_dora(lorafold: Run, tmp_path: Path):
    """The norms are those of the decoded weights."""
    base, decoded = make_base(tmp_path, "fp8_blocks", split=False)
    make_adapter(tmp_path, decoded)
    adapter, out = tmp_path / "dora", tmp_path / "out"
    targets = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"], "use_dora": True}
    models.make_adapter(tmp_path / "decoded", adapter, torch.float32, 4, **targets)
    lorafold("merge", base, "-a", adapter, "-o", out, "--save-method", "same")
    lorafold("merge", tmp_path / "decoded", "-a", adapter, "-o", tmp_path / "wide", "--dtype", "f32")
    before, after, wide = (models.load_tensors(path) for path in (base, out, tmp_path / "wide"))
    for key in (key for key in decoded if key.endswith(("q_proj.weight", "v_proj.weight", "down_proj.weight"))):
        stem = key.removesuffix(".weight")
        check_weight("fp8_blocks", before, after, stem, wide[key], wide[key].double())


# Two weights whose factor A is kept for many blocks, one in panels because it fits nowhere, and one that stays.
LARGE = {
    "q_proj": ((4200, 3200), 3), "k_proj": ((4200, 3200), 2), "o_proj": ((400, 2048), 300), "v_proj": ((64, 64), 0)
}  # fmt: skip


def make_large(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    stored, decoded, factors = {}, {}, {}
    generator = torch.Generator().manual_seed(1)
    for module, (shape, rank) in LARGE.items():
        path = f"model.layers.0.self_attn.{module}"
        weight = (torch.randn(shape, generator=generator) * 0.02).bfloat16()
        parts, decoded[f"{path}.weight"] = quantised.fp8((128, 128), torch.float32, ".weight_scale_inv")(weight)
        stored |= {path + end: tensor for end, tensor in parts.items()}
        if rank:
            for letter, size in (("A", (rank, shape[1])), ("B", (shape[0], rank))):
                values = torch.randn(size, generator=generator) * (0.2 if rank < 9 else 0.02)
                factors[f"base_model.model.{path}.lora_{letter}.weight"] = values
    quantised.write(base, stored, {"quantization_config": quantised.block_config(128, 128)}, split=False)
    adapter.mkdir()
    save_file(factors, adapter / "adapter_model.safetensors")
    ranks = {module: rank for module, (_, rank) in LARGE.items() if rank}
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 2, "target_modules": list(ranks), "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"rank_pattern": ranks}))
    return decoded


def test_preparation_shows_how_far_it_is(lorafold: Run, tmp_path: Path):
    """Scales are made before the first block; by one thread with the slowest table that takes some seconds."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    weight = torch.randn((4096, 2048), generator=torch.Generator().manual_seed(1)) * 0.02
    stem = "model.layers.0.self_attn.q_proj"
    parts, _ = quantised.fp8((128, 128), torch.float32, ".weight_scale_inv")(weight.bfloat16())
    stored = {stem + end: tensor for end, tensor in parts.items()}
    quantised.write(base, stored, {"quantization_config": quantised.block_config(128, 128)}, split=False)
    adapter.mkdir()
    factors = {"A": torch.randn(64, 2048), "B": torch.randn(4096, 64) * 0.001}
    save_file(
        {f"base_model.model.{stem}.lora_{letter}.weight": factor for letter, factor in factors.items()},
        adapter / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 64, "lora_alpha": 64, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    words = ["--save-method", "same", "--json", "--kernels", "scalar", "--threads", "1"]
    done = lorafold("merge", base, "-a", adapter, "-o", tmp_path / "out", *words)
    lines = [line for line in map(json.loads, done.stdout.splitlines()) if line["type"] == "progress"]
    made = [line for line in lines if line["limit"] == "prepare"]
    assert made and lines[: len(made)] == made and lines[-1]["limit"] != "prepare"
    assert all(0 < line["bytes_done"] <= line["bytes_total"] == weight.numel() for line in made)
    assert lines[-1]["bytes_done"] == lines[-1]["bytes_total"] > weight.numel()


def test_more_than_one_block(lorafold: Run, tmp_path: Path):
    """Tensors of many blocks, with blocks of scales that they cut; as little memory as can be gives the same."""
    base, adapter, out, other = (tmp_path / name for name in ("base", "adapter", "out", "other"))
    decoded = make_large(base, adapter)
    words = ["merge", base, "-a", adapter, "--save-method", "same"]
    lorafold(*words, "-o", out, "--memory", "64MiB")
    said = lorafold(*words, "-o", other, "--memory", "1MiB", status=2).stderr
    lorafold(*words, "-o", other, "--memory", said.partition("at least ")[2].partition("iB")[0] + "iB")
    assert (out / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    before, after = models.load_tensors(base), models.load_tensors(out)
    for key, deltas in models.deltas_of([(adapter, 1.0)]).items():
        merged = reference.fold(decoded[key], deltas, torch.float32)
        exact = torch.from_numpy(reference.exact_sum(decoded[key], deltas))
        stem = key.removesuffix(".weight")
        assert check_weight("fp8_blocks_usual", before, after, stem, merged, exact) > 0
    kept = [key for key in before if "v_proj" in key]
    assert as_bytes({key: after[key] for key in kept}) == as_bytes({key: before[key] for key in kept})


def test_whole_modules_of_the_adapter(lorafold: Run, tmp_path: Path):
    """A head that the base has in 16 bits is replaced; a quantised weight is not."""
    base, decoded = make_base(tmp_path, "fp8_blocks", split=False)
    make_adapter(tmp_path, decoded)
    for kept, status in (("lm_head", 0), ("k_proj", 3)):
        adapter, out = tmp_path / kept, tmp_path / f"out_{kept}"
        lora = {"r": 3, "target_modules": ["q_proj"], "modules_to_save": [kept]}
        models.make_adapter(tmp_path / "decoded", adapter, torch.bfloat16, 5, **lora)
        done = lorafold("merge", base, "-a", adapter, "-o", out, "--save-method", "same", status=status)
        if status:
            assert "replaces all of it" in done.stderr and not out.exists()
            continue
        before, after = models.load_tensors(base), models.load_tensors(out)
        assert list(before) == list(after)
        changed = {name for name in before if as_bytes({"": before[name]}) != as_bytes({"": after[name]})}
        assert {name for name in changed if "q_proj" not in name} <= {"lm_head.weight"}
        assert any("q_proj.weight" in name for name in changed)


def test_a_code_that_is_no_number(lorafold: Run, tmp_path: Path, nothing_left: None):
    base, decoded = make_base(tmp_path, "fp8_blocks", split=False)
    adapter = make_adapter(tmp_path, decoded)
    tensors = models.load_tensors(base)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name].view(torch.uint8)[3, 5] = 0x7F
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    words = ["merge", base, "-a", adapter, "-o", tmp_path / "out", "--save-method", "same"]
    assert name in lorafold(*words, status=3).stderr


def test_untied_head(lorafold: Run, tmp_path: Path):
    """A tied head that an adapter changes becomes a tensor of its own beside quantised layers."""
    model = models.from_config(
        models.transformers.LlamaConfig(**(models.SMALL | {"tie_word_embeddings": True})), torch.bfloat16
    )
    stored, decoded = {}, {}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight":
            continue
        decoded[key] = stored[key] = tensor
        if key.endswith("_proj.weight"):
            parts, decoded[key] = quantised.fp8((32, 32), torch.float32, ".weight_scale_inv")(tensor)
            stored |= {key.removesuffix(".weight") + end: part for end, part in parts.items()}
    config = json.loads(model.config.to_json_string()) | {"quantization_config": quantised.block_config(32, 32)}
    base, adapter, out = tmp_path / "base", tmp_path / "adapter", tmp_path / "out"
    quantised.write(base, stored, config, split=False)
    model.save_pretrained(tmp_path / "plain")
    models.make_adapter(tmp_path / "plain", adapter, torch.float32, 3, r=3, target_modules=["lm_head", "v_proj"])
    lorafold("merge", base, "-a", adapter, "-o", out, "--save-method", "same")
    after = models.load_tensors(out)
    assert set(after) - set(stored) == {"lm_head.weight"}
    deltas = models.deltas_of([(adapter, 1.0)])
    head = deltas.get("lm_head.weight") or deltas["model.embed_tokens.weight"]
    assert torch.equal(after["lm_head.weight"], reference.fold(decoded["model.embed_tokens.weight"], head))
    said = json.loads((out / "config.json").read_text())
    assert said["quantization_config"] == config["quantization_config"] and said["tie_word_embeddings"] is False


def test_what_is_not_written_may_stay(lorafold: Run, tmp_path: Path):
    """MLX beside a head in 16 bits that alone is changed: everything else is the base's, metadata included."""
    base, decoded = make_base(tmp_path, "mlx_4", split=False)
    tensors = models.load_tensors(base)
    for end in (".weight", ".scales", ".biases"):
        tensors.pop(f"lm_head{end}", None)
    tensors["lm_head.weight"] = decoded["lm_head.weight"]
    save_file(tensors, base / "model.safetensors", metadata={"format": "mlx"})
    make_adapter(tmp_path, decoded)
    adapter, out = tmp_path / "head", tmp_path / "out"
    models.make_adapter(tmp_path / "decoded", adapter, torch.float32, 5, r=3, target_modules=["lm_head"])
    lorafold("merge", base, "-a", adapter, "-o", out, "--save-method", "same")
    after = models.load_tensors(out)
    deltas = models.deltas_of([(adapter, 1.0)])["lm_head.weight"]
    assert torch.equal(after["lm_head.weight"], reference.fold(decoded["lm_head.weight"], deltas))
    tensors["lm_head.weight"] = after["lm_head.weight"]
    assert as_bytes(after) == as_bytes(tensors)
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "mlx"}

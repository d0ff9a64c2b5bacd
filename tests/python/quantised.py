"""Quantised forms of one weight: what is stored, and what the format's own package makes of it again.

A scheme takes a BF16 weight [out, in] of a module and gives the stored tensors by the end of their
names, and the decoded weight.  Where a package can be asked it decodes; else the formula of the
format does, in fp32 with one rounding.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
F8 = torch.float8_e4m3fn
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


@dataclass
class Scheme:
    pack: Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]
    config: dict | None
    summary: str
    package: str | None = None
    extra: dict = field(default_factory=dict)  # hf_quant_config.json
    config_key: str = "quantization_config"


def write(directory: Path, tensors: Tensors, config: dict, split: bool, extra: dict | None = None) -> None:
    """`split`: two shards that part every weight from most of its companions."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    if extra:
        (directory / "hf_quant_config.json").write_text(json.dumps(extra))
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if not split:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {name: files[index % 2] for index, name in enumerate(sorted(tensors))}
    for file in files:
        part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}
        save_file(part, directory / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


# ---- bitsandbytes ----


def bnb4(kind: str, nested: bool, blocksize: int, storage: torch.dtype = torch.uint8):
    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        import bitsandbytes.functional as bnb

        codes, state = bnb.quantize_4bit(
            weight, blocksize=blocksize, compress_statistics=nested, quant_type=kind, quant_storage=storage
        )
        stored = {".weight": codes}
        stored |= {f".weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
        absmax = state.absmax
        if nested:
            absmax = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
        packed = codes.contiguous().view(torch.uint8).flatten()
        nibbles = torch.stack([packed >> 4, packed & 15], 1).flatten()[: weight.numel()].int()
        wide = absmax.float().repeat_interleave(blocksize)[: weight.numel()]
        decoded = (state.code[nibbles] * wide).to(weight.dtype).reshape(weight.shape)
        # Its own decoder, but where a block passes the end of a row: there that for AVX-512 is wrong.
        if weight.shape[-1] % blocksize == 0 and weight.dim() == 2:
            assert torch.equal(decoded, bnb.dequantize_4bit(codes, state))
        return stored, decoded

    return pack


def bnb8(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    import bitsandbytes.functional as bnb

    codes, scale, _ = bnb.int8_vectorwise_quant(weight.half())
    stored = {".weight": codes, ".SCB": scale, ".weight_format": torch.zeros((), dtype=torch.uint8)}
    return stored, bnb.int8_vectorwise_dequant(codes, scale).to(weight.dtype)


# ---- FP8 ----


def spread(scale: torch.Tensor, block: tuple[int, int], shape: torch.Size) -> torch.Tensor:
    """The scale of each element, blocks cut at the edges."""
    wide = scale.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1)
    return wide[..., : shape[-2], : shape[-1]]


def fp8(block: tuple[int, int], scale_dtype: torch.dtype, suffix: str, shape: list[int] | None = None, **more: torch.Tensor):
    """`block` of 0: all rows or columns."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        size = (block[0] or weight.shape[0], block[1] or weight.shape[1])
        rows, cols = -(-weight.shape[0] // size[0]), -(-weight.shape[1] // size[1])
        scale = torch.zeros(rows, cols)
        for i in range(rows):
            for j in range(cols):
                part = weight[i * size[0] : (i + 1) * size[0], j * size[1] : (j + 1) * size[1]].float()
                scale[i, j] = part.abs().max().clamp(min=1e-12) / 448
        if scale_dtype in (torch.uint8, torch.float8_e8m0fnu):
            power = scale.log2().ceil()
            scale = power.exp2()
            stored_scale = (power + 127).to(torch.uint8).view(scale_dtype)
        else:
            stored_scale = scale.to(scale_dtype)
            scale = stored_scale.float()
        wide = spread(scale, size, weight.shape)
        codes = (weight.float() / wide).clamp(-448, 448).to(F8)
        if shape is not None:
            stored_scale = stored_scale.reshape(shape)
        stored = {".weight": codes, suffix: stored_scale} | {end: tensor.clone() for end, tensor in more.items()}
        return stored, (codes.float() * wide).to(weight.dtype)

    return pack


def block_config(rows: int, cols: int) -> dict:
    return {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [rows, cols]}


# ---- compressed-tensors ----


def ct_config(kind: str, **weights: object) -> dict:
    group = {"targets": ["Linear"], "weights": ct_weights(**weights), "format": kind}
    return {
        "quant_method": "compressed-tensors",
        "format": kind,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
        "version": "0.20.0",
    }


def ct_weights(**weights: object) -> dict:
    return {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False} | weights


def ct(format_name: str, **weights: object):
    """Scales are those of the largest element; whatever they are, decoding is what is looked at."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
        from compressed_tensors.quantization.utils import calculate_qparams

        args = QuantizationArgs(**ct_weights(**weights))
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        size = args.group_size or weight.shape[1]
        if args.strategy == "block":
            rows, cols = args.block_structure
            parts = [
                [weight[i : i + rows, j : j + cols] for j in range(0, weight.shape[1], cols)]
                for i in range(0, weight.shape[0], rows)
            ]
            low = torch.stack([torch.stack([part.amin() for part in line]) for line in parts])
            high = torch.stack([torch.stack([part.amax() for part in line]) for line in parts])
        elif args.strategy == "tensor":
            low, high = weight.amin().reshape(1), weight.amax().reshape(1)
        else:
            groups = weight.unflatten(1, (-1, size))
            low, high = groups.amin(-1), groups.amax(-1)
        state: Tensors = {"weight": weight}
        whole = None
        if args.strategy == "tensor_group":
            whole = (448 * 6 / weight.abs().max()).float().reshape(1)
            state["weight_global_scale"] = whole
        scale, zero = calculate_qparams(low, high, args, global_scale=whole)
        state["weight_scale"] = scale
        if not args.symmetric:
            state["weight_zero_point"] = zero
        compressor = BaseCompressor.get_value_from_registry(format_name)
        stored = compressor.compress(state, scheme)
        decoded = compressor.decompress(stored, scheme)["weight"]
        return {f".{name}": tensor for name, tensor in stored.items()}, decoded.data

    return pack


# ---- four bits in bytes ----


def e2m1_codes(values: torch.Tensor) -> torch.Tensor:
    """The nearest code; ties do not matter here."""
    return (values.unsqueeze(-1) - E2M1).abs().argmin(-1).to(torch.uint8)


def two_in_a_byte(codes: torch.Tensor) -> torch.Tensor:
    return codes[..., 0::2] | codes[..., 1::2] << 4


def nvfp4_modelopt(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    groups = weight.float().unflatten(1, (-1, 16))
    whole = groups.abs().max() / (448 * 6)
    scale = (groups.abs().amax(-1) / 6 / whole).clamp(min=2**-9).to(F8)
    s = (scale.float() * whole).unsqueeze(-1)
    codes = e2m1_codes(groups / s)
    stored = {
        ".weight": two_in_a_byte(codes.flatten(1)),
        ".weight_scale": scale,
        ".weight_scale_2": whole.reshape(()),
        ".input_scale": torch.tensor(0.01),
    }
    return stored, (E2M1[codes.int()] * s).flatten(1).to(weight.dtype)


def mx_blocks(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [..., columns / 32, 32] and bytes of scales."""
    groups = weight.float().unflatten(-1, (-1, 32))
    power = (groups.abs().amax(-1) / 6).log2().ceil().clamp(-127, 127)
    return e2m1_codes(groups / power.exp2().unsqueeze(-1)), (power + 127).to(torch.uint8)


def fp4_deepseek(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    codes, scale = mx_blocks(weight)
    decoded = E2M1[codes.int()] * (scale.float() - 127).exp2().unsqueeze(-1)
    stored = {
        ".weight": two_in_a_byte(codes.flatten(1)).view(torch.int8),
        ".scale": scale.view(torch.float8_e8m0fnu),
    }
    return stored, decoded.flatten(1).to(weight.dtype)


# ---- words ----


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Along the first dimension, from bit 0 up, across words of 32 bits."""
    ones = (codes.long().unsqueeze(1) >> torch.arange(bits).reshape(1, bits, 1)) & 1  # [n, bits, m]
    ones = ones.flatten(0, 1).unflatten(0, (-1, 32))
    return (ones << torch.arange(32).reshape(1, 32, 1)).sum(1).to(torch.int32)


def grouped(weight: torch.Tensor, bits: int, group_of: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Codes [in, out], scales F16 [groups, out] and zero points of unsigned codes."""
    inputs = weight.float().t()
    top = 2**bits - 1
    groups = int(group_of.max()) + 1
    low = torch.stack([inputs[group_of == g].amin(0).clamp(max=0) for g in range(groups)])
    high = torch.stack([inputs[group_of == g].amax(0).clamp(min=0) for g in range(groups)])
    scales = ((high - low) / top).clamp(min=2**-14).half()
    zeros = (-low / scales.float()).round().clamp(1, top).long()
    codes = (inputs / scales[group_of].float() + zeros[group_of]).round().clamp(0, top).long()
    return codes, scales, zeros


def decode_words(codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, group_of: torch.Tensor):
    """Exact in fp32, and rounded once to F16."""
    return (scales[group_of].float() * (codes - zeros[group_of]).float()).half().t().contiguous()


def gptq(bits: int, group_size: int, act_order: bool, less_one: bool):
    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        inputs = weight.shape[1]
        group_of = torch.arange(inputs) // group_size
        if act_order:
            group_of = group_of[torch.randperm(inputs, generator=torch.Generator().manual_seed(3))]
        codes, scales, zeros = grouped(weight, bits, group_of)
        stored = {
            ".qweight": pack_words(codes, bits),
            ".qzeros": pack_words((zeros - int(less_one)).t() & (2**bits - 1), bits).t(),
            ".scales": scales,
            ".g_idx": group_of.to(torch.int32),
        }
        return stored, decode_words(codes, scales, zeros, group_of)

    return pack


def gptq_config(bits: int, group_size: int, less_one: bool) -> dict:
    return {
        "quant_method": "gptq", "bits": bits, "group_size": group_size, "desc_act": False, "sym": False,
        "checkpoint_format": "gptq" if less_one else "gptq_v2",
    }  # fmt: skip


def awq(group_size: int):
    def pack_columns(codes: torch.Tensor) -> torch.Tensor:
        order = codes.unflatten(1, (-1, 8))[..., [0, 2, 4, 6, 1, 3, 5, 7]]
        return (order.long() << (4 * torch.arange(8))).sum(-1).to(torch.int32)

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        group_of = torch.arange(weight.shape[1]) // group_size
        codes, scales, zeros = grouped(weight, 4, group_of)
        stored = {".qweight": pack_columns(codes), ".qzeros": pack_columns(zeros), ".scales": scales}
        return stored, decode_words(codes, scales, zeros, group_of)

    return pack


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}

"""HQQ and MLX, whose zero points and biases are numbers of the weight's dtype.

What is stored is made here from the formats, so that no package is needed; one that is there must
decode it to the same bits.
"""

import importlib.util

import torch

from quantised import Tensors


def ranges(weight: torch.Tensor, bits: int, group_size: int) -> tuple[torch.Tensor, ...]:
    """Codes [groups, group_size], steps and lowest values [groups, 1] of the weight's dtype."""
    groups = weight.float().reshape(-1, group_size)
    low = groups.amin(1, keepdim=True).to(weight.dtype)
    step = ((groups.amax(1, keepdim=True) - low.float()) / (2**bits - 1)).clamp(min=2**-14).to(weight.dtype)
    codes = ((groups - low.float()) / step.float()).round().clamp(0, 2**bits - 1).to(torch.uint8)
    return codes, step, low


# ---- HQQ ----


def as_bytes(word: str) -> torch.Tensor:
    return torch.tensor(list(word.encode()), dtype=torch.uint8)


def packing_of(bits: int) -> str:
    return "3bit_32" if bits == 3 else f"{8 if bits > 4 else bits}bit_u8"


def meta(shape: torch.Size, bits: int, group_size: int, axis: int, dtype: torch.dtype) -> Tensors:
    numbers = {".nbits": bits, ".group_size": group_size, ".axis": axis}
    flags = {".view_as_float": 0, ".quant_scale": 0, ".quant_zero": 0, ".offload_meta": 0, ".encoded_state_dict": 1}
    flags |= {".stores_quant_config": 1, ".channel_wise": 1, ".optimize": 1, ".round_zero": int(bits == 4)}
    words = {".packing": packing_of(bits), ".unpack_view_dtype": "torch.uint8", ".compute_dtype": str(dtype)}
    stored = {end: torch.tensor(number, dtype=torch.int32) for end, number in numbers.items()}
    stored |= {end: torch.tensor(flag, dtype=torch.uint8) for end, flag in flags.items()}
    stored |= {end: as_bytes(word) for end, word in words.items()}
    return stored | {".shape": torch.tensor(shape)}


def in_bands(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Rows as fields of bytes, or of words of 3 bits: the first band in the highest."""
    count = 10 if bits == 3 else max(8 // bits, 1)
    rows = -(-codes.shape[0] // count)
    wide = torch.nn.functional.pad(codes.to(torch.int32), (0, 0, 0, rows * count - codes.shape[0]))
    bands = wide.unflatten(0, (count, rows))
    width = bits if count > 1 else 8
    packed = sum(bands[k] << (width * (count - 1 - k)) for k in range(count))
    return packed.to(torch.int32 if bits == 3 else torch.uint8)


def hqq(bits: int, group_size: int, dtype: torch.dtype = torch.bfloat16, axis: int = 1):
    """Along axis 0 groups are columns of the elements in their order, `group_size` rows of them."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        upright = weight if axis else weight.reshape(group_size, -1).t().contiguous()
        codes, scale, low = ranges(upright.to(dtype), bits, group_size)
        zero = (-low.float() / scale.float()).to(dtype)
        if axis == 0:
            codes, scale, zero = (part.t().contiguous() for part in (codes, scale, zero))
        packed = in_bands(codes, bits)
        stored = {".W_q": packed, ".scale": scale, ".zero": zero}
        stored |= meta(weight.shape, bits, group_size, axis, dtype)
        decoded = ((codes.to(dtype) - zero) * scale).reshape(weight.shape)
        if importlib.util.find_spec("hqq"):
            from hqq.core.quantize import Quantizer

            told = {"nbits": bits, "group_size": group_size, "axis": axis, "shape": weight.shape, "scale": scale}
            told |= {"zero": zero, "packing": packing_of(bits), "view_as_float": False, "compute_dtype": dtype}
            assert torch.equal(decoded, Quantizer.dequantize(packed, told))
        return stored, decoded

    return pack


HQQ = {
    "quant_method": "hqq",
    "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 32, "axis": 1}},
    "skip_modules": ["lm_head"],
}

# ---- MLX ----


def mlx_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Along the last dimension, from bit 0 up, across words of 32 bits."""
    ones = (codes.long().unsqueeze(-1) >> torch.arange(bits)) & 1
    words = (ones.flatten(-2).unflatten(-1, (-1, 32)) << torch.arange(32)).sum(-1)
    return words.to(torch.uint32)


def mlx_decoded(stored: Tensors, bits: int, group_size: int) -> torch.Tensor:
    import mlx.core as mx
    import numpy as np

    dtype = {torch.bfloat16: mx.bfloat16, torch.float16: mx.float16, torch.float32: mx.float32}[stored[".scales"].dtype]
    words = mx.array(stored[".weight"].numpy())
    scales, biases = (mx.array(stored[end].float().numpy()).astype(dtype) for end in (".scales", ".biases"))
    decoded = mx.dequantize(words, scales, biases, group_size=group_size, bits=bits, stream=mx.cpu)
    return torch.from_numpy(np.array(decoded.astype(mx.float32))).to(stored[".scales"].dtype)


def mlx(bits: int, group_size: int, dtype: torch.dtype = torch.bfloat16):
    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        codes, scale, bias = ranges(weight.to(dtype), bits, group_size)
        shape = (*weight.shape[:-1], -1)
        decoded = (codes.to(dtype) * scale + bias).reshape(weight.shape)
        stored = {".weight": mlx_words(codes.reshape(weight.shape), bits)}
        stored |= {".scales": scale.reshape(shape), ".biases": bias.reshape(shape)}
        if importlib.util.find_spec("mlx"):
            assert torch.equal(decoded, mlx_decoded(stored, bits, group_size))
        return stored, decoded

    return pack


def mlx_config(bits: int, group_size: int) -> dict:
    return {"group_size": group_size, "bits": bits, "mode": "affine"}

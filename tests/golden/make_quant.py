#!/usr/bin/env python3
"""Make tests/golden/quant: quantised tensors, and what the packages that know them decode.

usage: make_quant.py        (from anywhere; needs tools/requirements.txt and requirements-golden.txt)

A file is read by tests/kernel/test_quant_golden.c:
  8 bytes     LFQUANT1
  18 u64      matrices, rows, cols, transposed, codes, packing, bits, scale, scale_dtype, block_rows,
              block_cols, zeros, result_dtype (enumerators of src/compute/quant.h and base/dtype.h by
              number), the fp32 patterns of offset and whole, the number of floats in nested, of
              numbers in group_of, and 1 if there is a map
  3 u64       bytes of codes, scales, zero points; then these bytes
  map, nested (fp32), group_of (u32), and the expected elements in the result dtype
All little-endian.  sources.json says by which call each was decoded.  GPTQ, AWQ, modelopt and fbgemm
have no package that runs on a CPU: they are worked out here, in NumPy and torch, from the formats.
"""

import importlib.metadata
import json
import struct
from pathlib import Path

import numpy as np
import torch
from bitsandbytes import functional as bnb
from bitsandbytes.backends.default import ops as bnb_portable
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

OUT = Path(__file__).resolve().parent / "quant"

CODES = ["nf4", "fp4_bnb", "e2m1", "e4m3", "signed", "unsigned"]
PACKINGS = ["bytes", "high_flat", "low_first", "words", "words_down", "words_awq", "bands"]
SCALES = ["plain", "nested", "times_whole", "over_whole", "row_127"]
ZEROS = ["none", "middle", "bytes", "words", "words_1", "awq", "down", "numbers", "biases"]
DTYPES = {"u8": 4, "e4m3": 7, "e8m0": 8, "f16": 13, "bf16": 14, "f32": 17}

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
RESULTS = {BF16: "bf16", F16: "f16", F32: "f32"}
E4M3 = torch.float8_e4m3fn

sources = {}


def data(x) -> bytes:
    """The bytes of a tensor or an array."""
    if isinstance(x, torch.Tensor):
        return x.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return np.ascontiguousarray(x).tobytes()


def pattern(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def write(
    name, source, expected, shape, codes, packing, bits, scale_dtype, block, parts, *, scale="plain",
    zeros="none", transposed=False, offset=0.0, whole=0.0, nested=None, table=None, group_of=None
):  # fmt: skip
    matrices, rows, cols = shape
    assert expected.numel() == matrices * rows * cols
    result = DTYPES[RESULTS[expected.dtype]]
    nested = np.zeros(0, np.float32) if nested is None else nested
    group_of = np.zeros(0, np.uint32) if group_of is None else group_of
    parts = [data(part) for part in parts] + [b""] * (3 - len(parts))
    numbers = [
        matrices, rows, cols, transposed, CODES.index(codes), PACKINGS.index(packing), bits,
        SCALES.index(scale), DTYPES[scale_dtype], *block, ZEROS.index(zeros), result, pattern(offset),
        pattern(whole), len(nested), len(group_of), table is not None, *[len(part) for part in parts],
    ]  # fmt: skip
    with open(OUT / name, "wb") as file:
        file.write(b"LFQUANT1" + struct.pack("<21Q", *numbers) + b"".join(parts))
        file.write(b"" if table is None else data(table))
        file.write(data(nested) + data(group_of) + data(expected))
    sources[name] = source


def normal(*shape, dtype=F32):
    return (torch.randn(shape) * 0.05).to(dtype)


def some_bytes(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


# ------------------------------------------------------------------------------------ bitsandbytes


def four_bits(name, kind, shape, blocksize, dtype, nested):
    # Rows far apart, so that nested scales are as large as their offset, and a fused sum would show.
    weight = (normal(*shape) * torch.randn(shape[0], 1).exp()).to(dtype)
    packed, state = bnb.quantize_4bit(
        weight, blocksize=blocksize, compress_statistics=nested, quant_type=kind
    )
    stored = state.as_dict(packed=False)
    absmax = stored["absmax"]
    more = {}
    if nested:
        more = dict(
            scale="nested",
            offset=stored["nested_offset"],
            nested=stored["nested_absmax"].numpy(),
            table=stored["nested_quant_map"],
        )
        absmax = bnb.dequantize_blockwise(state.absmax, state.state2).float() + state.offset
    if shape[1] % blocksize:  # the AVX-512 kernel is wrong there
        source = "bitsandbytes backends/default dequantize_4bit"
        table = bnb_portable._get_4bit_code(kind, packed.device)
        expected = bnb_portable._dequantize_4bit_compute(
            packed.reshape(-1), absmax, table, blocksize, shape, dtype
        )
    else:
        source = "bitsandbytes dequantize_4bit"
        expected = bnb.dequantize_4bit(packed, state)
    write(
        name, source, expected, (1, *shape), {"nf4": "nf4", "fp4": "fp4_bnb"}[kind], "high_flat", 4,
        "u8" if nested else "f32", (0, blocksize), [packed, stored["absmax"]], **more
    )  # fmt: skip


def bitsandbytes():
    four_bits("bnb_nf4_bf16", "nf4", (12, 128), 64, BF16, False)
    four_bits("bnb_nf4_f16_nested", "nf4", (12, 128), 64, F16, True)
    four_bits("bnb_nf4_bf16_nested_ragged", "nf4", (67, 125), 32, BF16, True)
    four_bits("bnb_nf4_f32_wide", "nf4", (5, 4304 // 8), 64, F32, False)
    four_bits("bnb_nf4_f32_nested", "nf4", (40, 64), 32, F32, True)
    four_bits("bnb_fp4_bf16_nested", "fp4", (12, 128), 64, BF16, True)
    four_bits("bnb_fp4_f32", "fp4", (9, 96), 128, F32, False)
    for dtype in (BF16, F16, F32):
        rows, stats, _ = bnb.int8_vectorwise_quant(normal(9, 133, dtype=F16))
        write(
            f"bnb_int8_{RESULTS[dtype]}", "bitsandbytes int8_vectorwise_dequant",
            bnb.int8_vectorwise_dequant(rows, stats).to(dtype), (1, 9, 133), "signed", "bytes", 8,
            "f32", (1, 133), [rows, stats], scale="row_127"
        )  # fmt: skip


# ------------------------------------------------------------------------------------ transformers


def transformers():
    decoder = Fp8Dequantize(None)
    codes = torch.arange(256, dtype=torch.uint8).repeat(12).reshape(48, 64)
    codes = codes[:, torch.randperm(64)].contiguous()
    grid = normal(3, 4).abs()
    scales = {"f32": grid, "bf16": grid.to(BF16), "e8m0": torch.randint(90, 140, (3, 4)).to(torch.uint8)}
    for dtype, scale in scales.items():
        for result in (BF16, F16) if dtype == "f32" else (BF16,):
            write(
                f"hf_fp8_{dtype}_{RESULTS[result]}", "transformers Fp8Dequantize",
                decoder._dequantize_one(codes.view(E4M3), scale, result), (1, 48, 64), "e4m3", "bytes",
                8, dtype, (16, 16), [codes, scale]
            )  # fmt: skip
    blocks = some_bytes(2, 24, 2, 16)
    scale = torch.randint(0, 255, (2, 24, 2), dtype=torch.uint8)
    for result in (BF16, F32):
        write(
            f"hf_mxfp4_{RESULTS[result]}", "transformers convert_moe_packed_tensors",
            convert_moe_packed_tensors(blocks, scale, dtype=result), (2, 64, 24), "e2m1", "low_first", 4,
            "e8m0", (1, 32), [blocks, scale], transposed=True
        )  # fmt: skip


# ------------------------------------------------------------------------------ compressed-tensors


def decompress(compressor, state, **arguments):
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
    return BaseCompressor.get_value_from_registry(compressor).decompress(state, scheme)["weight"]


def ct_floats():
    codes = some_bytes(30, 52)
    codes[(codes & 127) == 127] = 0
    source = "compressed-tensors float-quantized"
    cases = [
        ("channel", (30, 1), (1, 52), {}),
        ("tensor", (1,), (30, 52), {}),
        ("block", (2, 4), (16, 16), {"block_structure": [16, 16]}),
        ("group", (30, 4), (1, 13), {"group_size": 13}),
    ]
    for strategy, grid, block, more in cases:
        for dtype in (BF16, F16) if strategy == "channel" else (BF16,):
            scale = normal(*grid, dtype=dtype).abs()
            expected = decompress(
                "float-quantized", {"weight": codes.view(E4M3), "weight_scale": scale}, num_bits=8,
                type="float", strategy=strategy, symmetric=True, **more
            )  # fmt: skip
            write(
                f"ct_fp8_{strategy}_{RESULTS[dtype]}", source, expected, (1, 30, 52), "e4m3", "bytes", 8,
                RESULTS[dtype], block, [codes, scale]
            )  # fmt: skip


def ct_fp4():
    values = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    packed = pack_fp4_to_uint8(values[torch.randint(0, 16, (10, 64))].to(BF16))
    scale = normal(10, 4).abs().mul(2000).to(E4M3)
    whole = torch.tensor([1234.567])
    expected = decompress(
        "nvfp4-pack-quantized",
        {"weight_packed": packed, "weight_scale": scale, "weight_global_scale": whole},
        num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True,
    )  # fmt: skip
    numbers = values[torch.from_numpy(nibbles(packed.numpy()).astype(np.int64))]
    unrounded = dequantize(
        numbers, scale.float(), args=QuantizationArgs(
            num_bits=4, type="float", strategy="tensor_group", group_size=16, symmetric=True
        ), global_scale=whole, dtype=F32
    )  # fmt: skip
    for name, source, result in (
        ("ct_nvfp4", "compressed-tensors nvfp4-pack-quantized", expected),
        ("ct_nvfp4_f32", "compressed-tensors dequantize", unrounded),
    ):
        write(
            name, source, result, (1, 10, 64), "e2m1", "low_first", 4, "e4m3", (1, 16),
            [packed, scale], scale="over_whole", whole=whole.item()
        )  # fmt: skip
    for name, result in (("modelopt_nvfp4", BF16), ("modelopt_nvfp4_f32", F32)):
        times = np.float32(1 / 1234.567)
        s = torch.from_numpy(scale.float().numpy() * times).repeat_interleave(16, 1)
        write(
            name, "torch: e2m1 * (scale * weight_scale_2)", (numbers * s).to(result), (1, 10, 64),
            "e2m1", "low_first", 4, "e4m3", (1, 16), [packed, scale], scale="times_whole", whole=times
        )  # fmt: skip
    scale = torch.randint(100, 130, (10, 2), dtype=torch.uint8)
    expected = decompress(
        "mxfp4-pack-quantized", {"weight_packed": packed, "weight_scale": scale}, num_bits=4,
        type="float", strategy="group", group_size=32, symmetric=True
    )  # fmt: skip
    write(
        "ct_mxfp4", "compressed-tensors mxfp4-pack-quantized", expected, (1, 10, 64), "e2m1",
        "low_first", 4, "e8m0", (1, 32), [packed, scale]
    )  # fmt: skip


def ct_integers():
    codes = torch.arange(-128, 128).repeat(6).reshape(12, 128).to(torch.int8)
    cases = [
        ("channel", (12, 1), (1, 128), BF16, False),
        ("channel", (12, 1), (1, 128), F32, True),
        ("channel", (12, 1), (1, 128), F16, True),
        ("tensor", (1,), (12, 128), BF16, True),
    ]
    for strategy, grid, block, dtype, zeros in cases:
        state = {"weight": codes, "weight_scale": normal(*grid, dtype=dtype).abs()}
        if zeros:
            state["weight_zero_point"] = torch.randint(-128, 128, grid, dtype=torch.int8)
        expected = decompress(
            "int-quantized", state, num_bits=8, type="int", strategy=strategy, symmetric=not zeros
        )
        parts = [codes, state["weight_scale"]] + ([state["weight_zero_point"]] if zeros else [])
        write(
            f"ct_int8_{strategy}_{RESULTS[dtype]}{'_zeros' if zeros else ''}",
            "compressed-tensors int-quantized", expected, (1, 12, 128), "signed", "bytes", 8,
            RESULTS[dtype], block, parts, zeros="bytes" if zeros else "none"
        )  # fmt: skip


def ct_packed():
    rows, cols = 21, 100
    cases = [
        (4, "group", BF16, "middle"), (4, "group", F16, "down"), (4, "channel", BF16, "down"),
        (4, "tensor", BF16, "bytes"), (8, "channel", BF16, "middle"), (8, "group", F32, "down"),
        (8, "tensor", BF16, "bytes"), (3, "group", BF16, "middle"), (3, "group", F32, "down"),
        (2, "channel", F16, "down"),
    ]  # fmt: skip
    for bits, strategy, dtype, zeros in cases:
        low, high = -(1 << bits - 1), (1 << bits - 1)
        grid, block, more = {
            "group": ((rows, 5), (1, 20), {"group_size": 20}),
            "channel": ((rows, 1), (1, cols), {}),
            "tensor": ((1,), (rows, cols), {}),
        }[strategy]
        codes = torch.randint(low, high, (rows, cols), dtype=torch.int8)
        state = {
            "weight_packed": pack_to_int32(codes, bits),
            "weight_scale": normal(*grid, dtype=dtype).abs(),
            "weight_shape": torch.tensor([rows, cols]),
        }
        parts = [state["weight_packed"], state["weight_scale"]]
        if zeros != "middle":
            points = torch.randint(low, high, grid, dtype=torch.int8)
            if zeros == "down":
                points = pack_to_int32(points, bits, packed_dim=0).contiguous()
            state["weight_zero_point"] = points
            parts.append(points)
        expected = decompress(
            "pack-quantized", state, num_bits=bits, type="int", strategy=strategy,
            symmetric=zeros == "middle", **more
        )  # fmt: skip
        write(
            f"ct_packed{bits}_{strategy}_{RESULTS[dtype]}_{zeros}", "compressed-tensors pack-quantized",
            expected, (1, rows, cols), "unsigned", "words", bits, RESULTS[dtype], block, parts,
            zeros=zeros
        )  # fmt: skip


# -------------------------------------------------------------------------------------- HQQ and MLX


def hqq(bits, group, dtype):
    from hqq.core.quantize import Quantizer

    torch.manual_seed(bits)
    weight = normal(24, 96, dtype=dtype)
    packed, meta = Quantizer.quantize(weight, nbits=bits, group_size=group, axis=1, device="cpu", compute_dtype=dtype)
    scale, zero = meta["scale"].to(dtype), meta["zero"].to(dtype)
    meta |= {"scale": scale, "zero": zero, "compute_dtype": dtype}
    write(
        f"hqq{bits}_{RESULTS[dtype]}", "hqq.core.quantize.Quantizer.dequantize",
        Quantizer.dequantize(packed, meta), (1, 24, 96), "unsigned", "bytes" if bits == 8 else "bands",
        bits, RESULTS[dtype], (1, group), [packed, scale, zero], zeros="numbers"
    )  # fmt: skip


def mlx(bits, group, dtype, shape=(24, 128)):
    import mlx.core as mx

    def as_torch(x):
        return torch.from_numpy(np.array(x.astype(mx.float32))).to(dtype)

    torch.manual_seed(bits)
    mx.set_default_device(mx.cpu)
    kind = {BF16: mx.bfloat16, F16: mx.float16, F32: mx.float32}[dtype]
    weight = mx.array(normal(*shape).numpy()).astype(kind)
    words, scales, biases = mx.quantize(weight, group_size=group, bits=bits)
    decoded = mx.dequantize(words, scales, biases, group_size=group, bits=bits)
    matrices = shape[0] if len(shape) == 3 else 1
    write(
        f"mlx{bits}_{RESULTS[dtype]}" + "_experts" * (matrices > 1), "mlx.core.dequantize", as_torch(decoded),
        (matrices, *shape[-2:]), "unsigned", "words", bits, RESULTS[dtype], (1, group),
        [np.array(words), as_torch(scales), as_torch(biases)], zeros="biases"
    )  # fmt: skip


def numbers():
    for bits, group, dtype in ((8, 32, BF16), (4, 32, BF16), (4, 16, F16), (4, 96, F32), (2, 16, BF16), (2, 32, F16), (1, 16, BF16)):
        hqq(bits, group, dtype)
    for bits, group in ((2, 64), (3, 32), (4, 64), (5, 32), (6, 64), (8, 128)):
        mlx(bits, group, BF16)
    mlx(4, 32, F16)
    mlx(4, 64, F32)
    mlx(4, 32, BF16, (3, 8, 64))


# ------------------------------------------------------------------------------- worked out in NumPy


def nibbles(packed: np.ndarray) -> np.ndarray:
    """[rows][n] bytes as [rows][2 n] codes, the low half first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)


def words_of(codes: np.ndarray, bits: int) -> np.ndarray:
    """[lines][n] codes as [lines][n bits / 32] words: each line one long number, from its low end."""
    lines = []
    for line in codes:
        number = sum(int(code) << (bits * k) for k, code in enumerate(line))
        lines.append([number >> (32 * w) & 0xFFFFFFFF for w in range(len(line) * bits // 32)])
    return np.array(lines, dtype=np.uint32)


def gptq(name, bits, version, act_order):
    inputs, outputs, group = 64, 32, 16
    rng = np.random.default_rng(bits)
    q = rng.integers(0, 1 << bits, (inputs, outputs))
    z = rng.integers(0, 1 << bits, (inputs // group, outputs))
    s = rng.normal(0, 0.02, z.shape).astype(np.float16)
    groups = np.arange(inputs) // group
    if act_order:
        groups = rng.permutation(groups)
    if version == 2:
        stored = words_of(z, bits)
    elif bits == 3:
        stored = words_of((z - 1) % 8, bits)
    else:  # a zero of 0 borrows from its neighbour
        stored = words_of(z, bits) - np.uint32(sum(1 << k for k in range(0, 32, bits)))
    product = (q - z[groups]).astype(np.float32) * s[groups].astype(np.float32)
    write(
        name, "NumPy", torch.from_numpy(product.T.astype(np.float16)), (1, outputs, inputs), "unsigned",
        "words_down", bits, "f16", (group, 1), [words_of(q.T, bits).T, s, stored],
        zeros="words" if version == 2 else "words_1", transposed=True,
        group_of=groups.astype(np.uint32) if act_order else None
    )  # fmt: skip


def awq():
    inputs, outputs, group = 48, 40, 16
    rng = np.random.default_rng(4)
    q = rng.integers(0, 16, (inputs, outputs))
    z = rng.integers(0, 16, (inputs // group, outputs))
    s = rng.normal(0, 0.02, z.shape).astype(np.float16)
    product = (q - z.repeat(group, 0)).astype(np.float32) * s.repeat(group, 0).astype(np.float32)

    def pack(codes):
        order = [0, 2, 4, 6, 1, 3, 5, 7]
        return words_of(codes.reshape(len(codes), -1, 8)[:, :, order].reshape(codes.shape), 4)

    write(
        "awq_gemm", "NumPy", torch.from_numpy(product.T.astype(np.float16)), (1, outputs, inputs),
        "unsigned", "words_awq", 4, "f16", (group, 1), [pack(q), s, pack(z)], zeros="awq",
        transposed=True
    )  # fmt: skip


def fbgemm():
    codes = some_bytes(2, 24, 40)
    scale = normal(2, 1, 40).abs()
    write(
        "fbgemm_experts", "torch: code * scale", (codes.view(E4M3).float() * scale).to(BF16),
        (2, 24, 40), "e4m3", "bytes", 8, "f32", (24, 1), [codes, scale]
    )  # fmt: skip


def main():
    torch.manual_seed(30)
    OUT.mkdir(exist_ok=True)
    bitsandbytes()
    transformers()
    ct_floats()
    ct_fp4()
    ct_integers()
    ct_packed()
    for bits in (2, 3, 4, 8):
        gptq(f"gptq{bits}_v1", bits, 1, False)
        gptq(f"gptq{bits}_v1_act_order", bits, 1, True)
        gptq(f"gptq{bits}_v2", bits, 2, False)
    awq()
    fbgemm()
    numbers()
    packages = ["torch", "transformers", "bitsandbytes", "compressed-tensors", "hqq", "mlx", "numpy"]
    versions = {name: importlib.metadata.version(name) for name in packages}
    record = {"versions": versions, "decoded_by": sources}
    (OUT / "sources.json").write_text(json.dumps(record, indent=1) + "\n")


main()

#!/usr/bin/env python3
"""Make tests/golden/encode: numbers, and the codes that other packages or their rules make of them.

usage: make_encode.py        (from anywhere; needs tools/requirements.txt and requirements-golden.txt)

A file is read by tests/kernel/test_encode_golden.c:
  8 bytes     LFENCOD1
  7 u64       operation, codes and result dtype (enumerators of src/compute/quant.h and base/dtype.h by
              number), block, numbers of src, of floats and of bytes
  src, floats (fp32), bytes
All little-endian.  By operation the floats and bytes are
  bnb4        the expected absmax; the expected codes
  round_trip  the expected results
  nested      src is absmax; map (256), offset and expected nested_absmax; the expected codes
  ties        the same with an offset of 0 that is not their mean
  scaled      the scales that are given; the expected codes
  mxfp4       src is the largest magnitude of a block; its expected scale
sources.json says what each was made with.  bitsandbytes on a CPU decides NF4 on blocks that are not all
zero; its FP4, tails and nested codes differ from its CUDA kernels, whose rules are written out below.
"""

import hashlib
import importlib.metadata
import json
import struct
from pathlib import Path

import numpy as np
import torch
from bitsandbytes import functional as bnb
from bitsandbytes.backends.default import ops as bnb_portable  # noqa: F401
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8
from compressed_tensors.quantization.utils.fp4_utils import cast_to_fp4
from compressed_tensors.quantization.utils.mxfp_utils import generate_mx_scales

OUT = Path(__file__).resolve().parent / "encode"
OPERATIONS = ["bnb4", "round_trip", "nested", "scaled", "mxfp4", "ties"]
CODES = {"nf4": 0, "fp4": 1, "e2m1": 2, "e4m3": 3, "signed": 4}
DTYPES = {torch.float16: 13, torch.bfloat16: 14, torch.float32: 17}
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
f32 = np.float32

# The constants in the compiled CUDA kernels.
NF4 = np.array(
    [0xBF591CD9, 0xBF1C5270, 0xBEEB8480, 0xBEADEA76, 0xBE703CEC, 0xBE0D38BC, 0xBD3A7871, 0x3D22FAFF, 0x3DF64863,
     0x3E5067E0, 0x3E9582D4, 0x3EC753F9, 0x3F006D03, 0x3F248DAF, 0x3F5C89D9], np.uint32
).view(f32)  # fmt: skip
FP4 = np.array([0x3B2AAAB9, 0x3DB00000, 0x3E555555, 0x3E955555, 0x3ED55556, 0x3F155550, 0x3F555555], np.uint32).view(f32)
FP4_CODES = np.array([0, 1, 6, 7, 4, 5, 2, 3], np.uint8)

sources = {}


def write(name, source, operation, src, floats=(), data=(), *, codes="nf4", dtype=F32, block=1):
    src, floats = np.asarray(src, f32).reshape(-1), np.asarray(floats, f32).reshape(-1)
    data = np.asarray(data, np.uint8).reshape(-1)
    numbers = [OPERATIONS.index(operation), CODES[codes], DTYPES[dtype], block, src.size, floats.size, data.size]
    with open(OUT / name, "wb") as file:
        file.write(b"LFENCOD1" + struct.pack("<7Q", *numbers))
        file.write(src.tobytes() + floats.tobytes() + data.tobytes())
    sources[name] = source


def normal(count, dtype=BF16, deviation=0.02):
    return (torch.randn(count) * deviation).to(dtype).float()


def blocks(x, block):
    """Rows of `block`, the last filled up with zeros."""
    return np.pad(x, (0, -x.size % block)).reshape(-1, block)


# ------------------------------------------------------------------------------------ bitsandbytes


def bnb4(x, codes, block):
    """The CUDA kernel, with a reciprocal that is correctly rounded, and zeros as 7 or 0."""
    rows = blocks(x, block)
    absmax = np.abs(rows).max(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        v = rows * (f32(1) / absmax)[:, None]
    if codes == "nf4":
        code = np.searchsorted(NF4, v, "left").astype(np.uint8)
        code[absmax == 0] = 7
    else:
        code = FP4_CODES[np.searchsorted(FP4, np.abs(v), "left")] | np.where(v < 0, 8, 0).astype(np.uint8)
        code[absmax == 0] = 0
    code = code.reshape(-1)[: x.size]
    if x.size % 2:
        code = np.append(code, np.uint8(7 if codes == "nf4" else 0))
    return absmax, code[::2] << 4 | code[1::2]


def make_bnb4():
    for dtype, block, count in ((BF16, 64, 1024), (F16, 64, 1024), (F32, 64, 1024), (BF16, 32, 512), (F16, 256, 1024),
                                (BF16, 2048, 4096)):  # fmt: skip
        x = normal(count, dtype)
        packed, state = bnb.quantize_4bit(x, blocksize=block, quant_type="nf4")
        name = f"nf4_{str(dtype)[6:]}_{block}"
        absmax, code = bnb4(x.numpy(), "nf4", block)
        assert (absmax == state.absmax.numpy()).all() and (code == packed.reshape(-1).numpy()).all(), name
        write(name, "bitsandbytes quantize_4bit on a CPU", "bnb4", x, state.absmax, packed, block=block)
        for result in (BF16, F16):
            state.dtype = result
            back = torch.ops.bitsandbytes.dequantize_4bit.default(packed, state.absmax, block, "nf4", x.shape, result)
            write(f"{name}_{str(result)[6:]}", "bitsandbytes quantize_4bit, dequantize_4bit on a CPU", "round_trip", x,
                  back.float().reshape(-1), dtype=result, block=block)  # fmt: skip
    for codes, count, block in (("nf4", 1001, 64), ("fp4", 1024, 64), ("fp4", 777, 128), ("fp4", 64, 32)):
        x = normal(count)
        if block != 64:
            x[block : 2 * block] = 0
        absmax, code = bnb4(x.numpy(), codes, block)
        write(f"{codes}_rule_{count}_{block}", "rule of the CUDA kernel", "bnb4", x, absmax, code, codes=codes, block=block)
    # Every bound of the tree, and its neighbours, below an absmax of 1.
    for codes, bounds in (("nf4", NF4), ("fp4", np.concatenate([FP4, -FP4]))):
        x = np.concatenate([bounds, np.nextafter(bounds, f32(2)), np.nextafter(bounds, f32(-2)), [f32(1), f32(-0.0)]])
        x = x.astype(f32)
        absmax, code = bnb4(x, codes, x.size + x.size % 2)
        write(f"{codes}_bounds", "rule of the CUDA kernel", "bnb4", x, absmax, code, codes=codes, block=x.size + x.size % 2)


def search(table, x):
    """dQuantize of the CUDA kernels, for all x at once."""
    low, high, pivot = np.zeros(x.shape, int), np.full(x.shape, 255), np.full(x.shape, 127)
    for step in (64, 32, 16, 8, 4, 2, 1):
        above = x > table[pivot]
        low, high = np.where(above, pivot, low), np.where(above, high, pivot)
        pivot = np.where(above, pivot + step, pivot - step)
    middle_up, middle_down = (table[high] + table[pivot]) * f32(0.5), (table[low] + table[pivot]) * f32(0.5)
    up = np.where(x > middle_up, high, pivot)
    down = np.where(x < middle_down, low, pivot)
    return np.where(x > table[pivot], up, down).astype(np.uint8)


def nested(absmax, table):
    total = 0.0
    for a in absmax:
        total += float(a)
    offset = f32(f32(total) / f32(absmax.size))
    rows = blocks(absmax, 256) - offset
    rows.reshape(-1)[absmax.size :] = 0
    largest = np.abs(rows).max(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        v = rows * (f32(1) / largest)[:, None]
    return offset, largest, search(table, v.reshape(-1)[: absmax.size])


def make_nested():
    table = bnb.create_dynamic_map().numpy().astype(f32)
    digest = hashlib.sha256(table.tobytes()).hexdigest()
    assert digest == "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c", digest
    other = table.copy()
    other[0] = -1.0  # as some files have it
    for name, count, m in (("nested", 1000, table), ("nested_other_map", 300, other), ("nested_one", 1, table),
                           ("nested_whole", 512, table)):  # fmt: skip
        absmax = np.abs(normal(count * 64).numpy()).reshape(-1, 64).max(1)
        offset, largest, code = nested(absmax, m)
        mean = torch.from_numpy(absmax).mean().numpy()
        assert abs(f32(offset).view(np.int32) - mean.view(np.int32)) <= 3, name
        write(name, "rule of the CUDA kernel", "nested", absmax, [*m, offset, *largest], code)
    # Numbers halfway between two of the map, and beside that; 1.0 makes nested_absmax 1.
    middle = ((table[1:] + table[:-1]) * f32(0.5)).astype(f32)
    x = np.concatenate([np.append(part, f32(1)) for part in (middle, np.nextafter(middle, f32(2)), np.nextafter(middle, f32(-2)))])
    write("nested_ties", "rule of the CUDA kernel", "ties", x, [*table, 0, 1, 1, 1], search(table, x))


# ------------------------------------------------------------------------------------ given scales


def make_e4m3():
    x = normal(2048).numpy()
    rows = x.reshape(-1, 128)
    scale = (np.abs(rows).max(1) / f32(448)).astype(f32)
    scale[3] /= f32(2)  # so that some are limited
    scale[5] = f32(2.0**-12)
    some = np.concatenate([np.arange(0, 0x7F80, 17), np.arange(0x8000, 0xFF80, 23)]).astype(np.uint32) << 16
    for name, src, scales, block in (
        ("e4m3", x, scale, 128),
        ("e4m3_bf16", some.view(f32), np.ones(1, f32), some.size),
    ):
        divided = torch.from_numpy(src / np.repeat(scales, block)[: src.size])
        code = divided.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
        write(name, "torch float8_e4m3fn", "scaled", src, scales, code, codes="e4m3", block=block)
    # Every number between two codes, and the neighbours of the middle.
    table = torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    middles = ((table[1:] + table[:-1]) / 2).astype(f32)
    src = np.concatenate([middles, np.nextafter(middles, f32(999)), np.nextafter(middles, f32(-1))])
    src = np.concatenate([src, -src])
    code = torch.from_numpy(src).to(torch.float8_e4m3fn).view(torch.uint8)
    write("e4m3_middles", "torch float8_e4m3fn", "scaled", src, [1.0], code, codes="e4m3", block=src.size)


def make_e2m1():
    # compressed-tensors finds its own scales, of which some leave numbers beyond 6.
    x = normal(2048).numpy()
    largest = torch.from_numpy(np.abs(x.reshape(-1, 32)).max(1))
    exponent = generate_mx_scales(largest.to(BF16), 4).float().numpy()
    scales = np.ldexp(f32(1), exponent.astype(int) - 127).astype(f32)
    middles = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6, 7, 0], f32)
    middles = np.concatenate([middles, np.nextafter(middles, f32(99)), np.nextafter(middles, f32(-99))])
    middles = np.concatenate([middles, -middles])
    middles = np.append(middles[(middles != 0) | ~np.signbit(middles)], f32(1))  # its -0 has no sign
    steps = (torch.rand(128) * 0.01).to(torch.float8_e4m3fn).float().numpy() * f32(0.0371)
    steps[7] = f32(0)
    for name, src, given, block in (("e2m1_mx", x, scales, 32), ("e2m1_nv", x, steps, 16),
                                    ("e2m1_middles", middles, np.ones(1, f32), middles.size)):  # fmt: skip
        spread = np.repeat(given, block)[: src.size]
        with np.errstate(divide="ignore", invalid="ignore"):
            divided = np.where(spread == 0, f32(0), src / spread).astype(f32)
        rounded = cast_to_fp4(torch.from_numpy(divided).clamp(-6, 6))
        code = pack_fp4_to_uint8(rounded.reshape(1, -1))
        write(name, "compressed-tensors cast_to_fp4, pack_fp4_to_uint8", "scaled", src, given, code, codes="e2m1", block=block)


def make_int8():
    x = normal(96 * 33).numpy()
    largest = np.abs(x.astype(np.float16)).reshape(33, 96).max(1).astype(f32)
    largest[4] /= f32(2)
    half = x.astype(np.float16).astype(f32).reshape(33, 96)
    code = np.clip(np.rint(half * (f32(127) / largest)[:, None]), -127, 127).astype(np.int8).view(np.uint8)
    write("int8", "rule of the CUDA kernel", "scaled", x, largest, code, codes="signed", block=96)


def make_mxfp4_scale():
    amax = np.abs(normal(2000, F32, 3.0).numpy()) * np.exp2(np.random.default_rng(5).integers(-140, 120, 2000))
    amax = np.concatenate([amax, [0.0], np.exp2(np.arange(-149.0, 128.0)), np.exp2(np.arange(-148.0, 128.0)) * 1.9999])
    amax = amax.astype(f32)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(amax.astype(np.float64))) - 2 + 127
    scale = np.where(amax == 0, 0, np.clip(exponent, 0, 254)).astype(np.uint8)
    write("mxfp4_scale", "floor(log2 amax) - 2 in double", "mxfp4", amax, (), scale)


def main():
    OUT.mkdir(exist_ok=True)
    torch.manual_seed(11)
    make_bnb4()
    make_nested()
    make_e4m3()
    make_e2m1()
    make_int8()
    make_mxfp4_scale()
    names = ("torch", "numpy", "bitsandbytes", "compressed-tensors")
    versions = {name: importlib.metadata.version(name) for name in names}
    text = json.dumps({"versions": versions, "sources": dict(sorted(sources.items()))}, indent=2)
    (OUT / "sources.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

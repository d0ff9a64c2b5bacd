"""bitsandbytes' 4-bit codes as its CUDA kernels make them, in numpy, and what a quantised directory must hold."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

BLOCK = 64
NAMES = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}
COMPANIONS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state.bitsandbytes__nf4",
              "quant_state.bitsandbytes__fp4")  # fmt: skip

NF4_MAP = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
], np.float32)  # fmt: skip
NF4_BOUNDS = np.array([
    -0.8480964004993439, -0.6106329262256622, -0.4599952697753906, -0.33967943489551544, -0.23460740596055984,
    -0.13791173323988914, -0.045525018125772476, 0.03979014977812767, 0.1202552504837513, 0.2035212516784668,
    0.2920137718319893, 0.3893125355243683, 0.5016634166240692, 0.6427869200706482, 0.8614784181118011,
], np.float32)  # fmt: skip
FP4_HALF = np.array([0, 0.0052083333, 0.66666667, 1, 0.33333333, 0.5, 0.16666667, 0.25], np.float32)
FP4_MAP = np.concatenate([FP4_HALF, -FP4_HALF]) + np.float32(0)  # code 8 is stored as +0
FP4_BOUNDS = np.array([0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333], np.float32)
FP4_ORDER = np.array([0, 1, 6, 7, 4, 5, 2, 3], np.uint8)


def dynamic_map() -> np.ndarray:
    """The map of torch 2.13; a fused multiply-add of fp32 is one rounding of what float64 holds exactly."""
    values = [0.0, 1.0]
    f = np.float32
    for i in range(7):
        steps = 2**i
        step = float((f(1) - f(0.1)) / f(steps))
        grid = [f(step * k + float(f(0.1))) if k < (steps + 1) // 2 else f(1 - step * (steps - k))
                for k in range(steps + 1)]
        for low, high in zip(grid, grid[1:], strict=False):
            value = f(10.0 ** (i - 6)) * ((low + high) / f(2))
            values += [value, -value]
    out = np.sort(np.array(values, np.float32))
    assert hashlib.sha256(out.tobytes()).hexdigest().startswith("e732639a")
    return out


def encode(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Packed codes and absmax of a flat fp32 array."""
    count = values.size
    blocks = -(-count // BLOCK)
    padded = np.zeros(blocks * BLOCK, np.float32)
    padded[:count] = values
    wide = padded.reshape(blocks, BLOCK)
    absmax = np.abs(wide).max(1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.float32(1) / absmax
        x = wide * inverse[:, None]
        if kind == "nf4":
            codes = (x[..., None] > NF4_BOUNDS).sum(-1).astype(np.uint8)
        else:
            codes = FP4_ORDER[(np.abs(x)[..., None] > FP4_BOUNDS).sum(-1)] | np.where(x < 0, 8, 0).astype(np.uint8)
    codes[~np.isfinite(inverse)] = 7 if kind == "nf4" else 0
    flat = codes.reshape(-1)[: count + count % 2].copy()
    if count % 2:
        flat[-1] = 7 if kind == "nf4" else 0
    return (flat[0::2] << 4 | flat[1::2]).astype(np.uint8), absmax


def nest(absmax: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.float32]:
    """Codes, nested absmax and offset; the nearest number of the table, found by looking at all."""
    total = 0.0
    for value in absmax.astype(np.float64):
        total += value
    offset = np.float32(total) / np.float32(absmax.size)
    codes, scales = [], []
    for first in range(0, absmax.size, 256):
        y = absmax[first : first + 256] - offset
        scale = np.abs(y).max()
        with np.errstate(divide="ignore", invalid="ignore"):
            v = y * (np.float32(1) / scale)
        nearest = np.abs(v[:, None].astype(np.float64) - table).argmin(1) if scale else np.zeros(y.size, int)
        codes.append(nearest.astype(np.uint8))
        scales.append(scale)
    return np.concatenate(codes), np.array(scales, np.float32), offset


def quantised(name: str, weight: torch.Tensor, kind: str, nested: bool) -> dict[str, torch.Tensor]:
    """What a file must hold of a weight that is rounded to its dtype already, without the quant_state."""
    codes, absmax = encode(weight.float().numpy().reshape(-1), kind)
    table = NF4_MAP if kind == "nf4" else FP4_MAP
    out = {name: codes.reshape(-1, 1), f"{name}.quant_map": table}
    state = {"quant_type": kind, "blocksize": BLOCK, "dtype": NAMES[weight.dtype], "shape": list(weight.shape)}
    if nested:
        dynamic = dynamic_map()
        small, scales, offset = nest(absmax, dynamic)
        out |= {f"{name}.absmax": small, f"{name}.nested_absmax": scales, f"{name}.nested_quant_map": dynamic}
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset)}
    else:
        out[f"{name}.absmax"] = absmax
    text = json.dumps(state).ljust(256).encode()
    out[f"{name}.quant_state.bitsandbytes__{kind}"] = np.frombuffer(text, np.uint8).copy()
    return {key: torch.from_numpy(value) for key, value in out.items()}


def decode(stored: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """By the formulas of the format, from what a file holds."""
    key = next(key for key in stored if key.startswith(f"{name}.quant_state."))
    state = json.loads(stored[key].numpy().tobytes())
    absmax = stored[f"{name}.absmax"].numpy()
    if f"{name}.nested_absmax" in stored:
        wide = np.repeat(stored[f"{name}.nested_absmax"].numpy(), 256)[: absmax.size]
        absmax = stored[f"{name}.nested_quant_map"].numpy()[absmax] * wide + np.float32(state["nested_offset"])
    codes = stored[name].numpy().reshape(-1)
    count = int(np.prod(state["shape"]))
    flat = np.stack([codes >> 4, codes & 15], 1).reshape(-1)[:count]
    values = stored[f"{name}.quant_map"].numpy()[flat] * np.repeat(absmax, BLOCK)[:count]
    dtype = {value: key for key, value in NAMES.items()}[state["dtype"]]
    return torch.from_numpy(values).to(dtype).reshape(state["shape"])


def same_bits(got: torch.Tensor, expected: torch.Tensor, name: str) -> None:
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
    left, right = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (got, expected))
    assert torch.equal(left, right), (name, int((left != right).sum()))


def check(out: Path, merged: dict[str, torch.Tensor], kind: str = "nf4", nested: bool = True) -> set[str]:
    """Every tensor of `out` is that of `merged` or its codes and companions, bit by bit; which are encoded."""
    got: dict[str, torch.Tensor] = {}
    for shard in sorted(out.glob("*.safetensors")):
        got |= load_file(shard)
    encoded = {key.split(".quant_state.")[0] for key in got if ".quant_state." in key}
    expected: dict[str, torch.Tensor] = {}
    for name, tensor in merged.items():
        expected |= quantised(name, tensor, kind, nested) if name in encoded else {name: tensor}
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        same_bits(got[name], tensor, name)
    return encoded

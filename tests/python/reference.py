"""The arithmetic of a merge as docs/NUMERICS.md defines it, in numpy, slow and obvious.

Also the two neighbours that it is compared with: the correctly rounded float64 result, and a bound
on how far a different order of the fp32 sums may lead away.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

PANEL = 64  # ranks that are summed in one chain

F32 = np.ndarray  # of float32
F64 = np.ndarray  # of float64


@dataclass
class Delta:
    """One factor pair: A [rank, cols] and B [rows, rank] in fp32, and the scale as a double."""

    a: F32
    b: F32
    scale: float


def fma(x: F32, y: F32, z: F32) -> F32:
    """fl32(x * y + z) with one rounding.

    The product of two fp32 numbers is exact in float64.  The float64 sum is rounded to odd, which
    keeps the second rounding, to fp32, correct (53 bits are more than 24 + 2).
    """
    product = x.astype(np.float64) * y.astype(np.float64)
    z64 = z.astype(np.float64)
    total = product + z64
    back = total - product
    rest = (product - (total - back)) + (z64 - back)  # exact: total + rest == product + z64
    return to_odd(total, rest).astype(np.float32)


def to_odd(value: F64, rest: F64) -> F64:
    """Of the two float64 numbers around value + rest (value the nearest one), that with an odd last bit."""
    even = (value.view(np.int64) & 1) == 0
    toward = np.nextafter(value, np.where(rest > 0, np.inf, -np.inf))
    return np.where((rest != 0) & even, toward, value)


def panel_sums(a: F32, b: F32) -> F32:
    """B A in fp32: fma chains over panels of 64 ranks, panel sums added in ascending order."""
    total = None
    for start in range(0, a.shape[0], PANEL):
        chain = np.zeros((b.shape[0], a.shape[1]), np.float32)
        for k in range(start, min(start + PANEL, a.shape[0])):
            x = np.broadcast_to(b[:, k : k + 1], chain.shape)
            y = np.broadcast_to(a[k : k + 1, :], chain.shape)
            chain = fma(x, y, chain)
        total = chain if total is None else total + chain
    assert total is not None
    return total


def fold(weight: torch.Tensor, deltas: list[Delta], dtype: torch.dtype | None = None) -> torch.Tensor:
    """The result, bit for bit, in the weight's dtype or in `dtype`."""
    w = weight.to(torch.float32).numpy().copy()
    for delta in deltas:
        w = w + np.float32(delta.scale) * panel_sums(delta.a, delta.b)
    assert w.dtype == np.float32
    return torch.from_numpy(w).to(dtype or weight.dtype)


def exact_sum(weight: torch.Tensor, deltas: list[Delta]) -> F64:
    w = weight.to(torch.float64).numpy().copy()
    for delta in deltas:
        w += delta.scale * (delta.b.astype(np.float64) @ delta.a.astype(np.float64))
    return w


def correctly_rounded(weight: torch.Tensor, deltas: list[Delta]) -> torch.Tensor:
    """The float64 result, rounded once to the weight's dtype."""
    return rounded_once(exact_sum(weight, deltas), weight.dtype)


def rounded_once(exact: F64, dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.float32:
        return torch.from_numpy(exact.astype(np.float32))
    if dtype == torch.float16:
        return torch.from_numpy(exact.astype(np.float16))
    near = exact.astype(np.float32)
    rest = exact - near
    even = (near.view(np.int32) & 1) == 0
    toward = np.nextafter(near, np.where(rest > 0, np.float32(np.inf), np.float32(-np.inf)))
    return torch.from_numpy(np.where((rest != 0) & even, toward, near)).to(torch.bfloat16)


def error_bound(weight: torch.Tensor, deltas: list[Delta]) -> F64:
    """How far two fp32 evaluations in different orders, each rounded to the dtype, can be apart."""
    w = weight.to(torch.float64).abs().numpy()
    size = w.copy()
    for delta in deltas:
        spread = np.abs(delta.b).astype(np.float64) @ np.abs(delta.a).astype(np.float64)
        size += abs(delta.scale) * spread
    rank = max((delta.a.shape[0] for delta in deltas), default=0)
    steps = (rank + 4 * len(deltas) + 2) * 2.0**-24
    return 2 * steps * size + step_of(exact_sum(weight, deltas), weight.dtype)


def step_of(value: F64, dtype: torch.dtype) -> F64:
    """The distance between neighbours of `dtype` at a value, rounded up to the next binade."""
    info = torch.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(value), info.tiny))) + 1
    return np.exp2(exponent + math.log2(info.eps))


def equal_share(left: torch.Tensor, right: torch.Tensor) -> float:
    return torch.eq(left, right).to(torch.float64).mean().item()

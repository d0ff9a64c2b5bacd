"""The reference itself: its fma against the C library's, its panels against their definition."""

import ctypes

import numpy as np
import torch

import reference


def libm_fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    libm = ctypes.CDLL("libm.so.6")
    libm.fmaf.restype = ctypes.c_float
    libm.fmaf.argtypes = [ctypes.c_float] * 3
    return np.array([libm.fmaf(*map(float, row)) for row in zip(x, y, z, strict=True)], np.float32)


def assert_same_bits(left: np.ndarray, right: np.ndarray) -> None:
    assert left.dtype == right.dtype == np.float32
    np.testing.assert_array_equal(left.view(np.uint32), right.view(np.uint32))


def test_fma_equals_libm_on_random_bits():
    bits = np.random.default_rng(1).integers(0, 2**32, size=(3, 20000), dtype=np.uint32)
    x, y, z = bits.view(np.float32)
    finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    with np.errstate(all="ignore"):
        assert_same_bits(
            reference.fma(x[finite], y[finite], z[finite]), libm_fma(x[finite], y[finite], z[finite])
        )


def test_fma_is_not_rounded_twice():
    # 1774001 * 38737 == 2**36 + 1: the product is half a step of 1.0 and a little more, but the
    # float64 sum does not hold the little more.
    x = np.array([1774001, 1774001, -1774001], np.float32)
    y = np.array([38737, 38737, 38737], np.float32) * np.float32(2.0**-60)
    z = np.array([1.0, 1.0 + 2.0**-23, -1.0], np.float32)
    naive = (x.astype(np.float64) * y + z).astype(np.float32)
    result = reference.fma(x, y, z)
    assert_same_bits(result, libm_fma(x, y, z))
    assert result[0] == np.float32(1.0 + 2.0**-23) != naive[0]


def test_panels_are_added_in_order():
    generator = np.random.default_rng(2)
    a = generator.standard_normal((130, 3)).astype(np.float32)
    b = generator.standard_normal((2, 130)).astype(np.float32)
    expected = np.zeros((2, 3), np.float32)
    for row in range(2):
        for column in range(3):
            panels = []
            for start in (0, 64, 128):
                chain = np.zeros(1, np.float32)
                for k in range(start, min(start + 64, 130)):
                    chain = libm_fma(b[row, k : k + 1], a[k, column : column + 1], chain)
                panels.append(chain[0])
            expected[row, column] = panels[0] + panels[1] + panels[2]
    assert_same_bits(reference.panel_sums(a, b), expected)


def test_correct_rounding_to_bf16_is_not_done_twice():
    # Just above the middle between 1 and the next bf16 number, by less than a step of fp32.
    weight = torch.tensor([[1.0]], dtype=torch.bfloat16)
    delta = reference.Delta(
        np.array([[2.0**-8], [2.0**-40]], np.float32), np.array([[1.0, 1.0]], np.float32), 1.0
    )
    assert reference.correctly_rounded(weight, [delta]).item() == 1.0 + 2.0**-7

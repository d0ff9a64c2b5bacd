/*
 * element.h - one element: stored as BF16, F16 or F32, rounded to them, and its part in norms
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_ELEMENT_H
#define COMPUTE_ELEMENT_H

#include "base/dtype.h"
#include "compute/convert.h"
#include "compute/rounded.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* value / unit.  On a device a division of 64 bits is ten times longer, and seldom needed. */
COMPUTE_SHARED uint64_t element_divide(uint64_t value, uint64_t unit)
{
#if ROUNDED_ON_DEVICE
    if ((value | unit) >> 32 == 0)
        return (uint32_t)value / (uint32_t)unit;
#endif
    return value / unit;
}

/* Bytes of an element of BF16, F16 or F32. */
COMPUTE_SHARED unsigned element_bytes(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 4 : 2;
}

/* An element of 2 or 4 bytes as it is stored, at any address. */
COMPUTE_SHARED uint32_t element_pattern(const unsigned char *src, unsigned bytes)
{
    uint16_t half;
    uint32_t word;

    if (bytes == sizeof(word)) {
        memcpy(&word, src, sizeof(word));
        return word;
    }
    memcpy(&half, src, sizeof(half));
    return half;
}

/* The fp32 pattern of one of BF16, F16 or F32. */
COMPUTE_SHARED uint32_t element_widen(uint32_t pattern, enum dtype dtype)
{
    if (dtype == DTYPE_F32)
        return pattern;
    return dtype == DTYPE_BF16 ? bf16_decode((uint16_t)pattern) : f16_decode((uint16_t)pattern);
}

COMPUTE_SHARED uint32_t element_load(const unsigned char *src, enum dtype dtype)
{
    return element_widen(element_pattern(src, element_bytes(dtype)), dtype);
}

/* The reverse, rounded.  Returns whether the stored number is finite. */
COMPUTE_SHARED bool element_store(unsigned char *dst, enum dtype dtype, uint32_t bits)
{
    uint32_t magnitude = bits & F32_MAGNITUDE;
    uint16_t half;
    uint32_t word;

    if (dtype == DTYPE_F32) {
        word = f32_encode(bits);
        memcpy(dst, &word, sizeof(word));
        return magnitude < F32_OVERFLOW;
    }
    half = dtype == DTYPE_BF16 ? bf16_encode(bits) : f16_encode(bits);
    memcpy(dst, &half, sizeof(half));
    return magnitude < (dtype == DTYPE_BF16 ? BF16_OVERFLOW : F16_OVERFLOW);
}

/* Rounded to BF16, F16 or F32 and widened again, as patterns. */
COMPUTE_SHARED uint32_t element_round(enum dtype dtype, uint32_t bits)
{
    if (dtype == DTYPE_BF16)
        return bf16_decode(bf16_encode(bits));
    if (dtype == DTYPE_F16)
        return f16_decode(f16_encode(bits));
    return f32_encode(bits);
}

COMPUTE_SHARED bool element_is_finite(float x)
{
    return (f32_bits(x) & F32_MAGNITUDE) < F32_INFINITY;
}

/* w + scale * sum, two roundings. */
COMPUTE_SHARED float element_add_scaled(float w, float scale, float sum)
{
    return f32_add(w, f32_mul(scale, sum));
}

/* As fold_root() and fold_dora_factor(). */
COMPUTE_SHARED float element_root(double squares)
{
    return f32_canonical((float)f64_sqrt(squares));
}

COMPUTE_SHARED float element_dora_factor(float magnitude, float norm)
{
    return f32_canonical(f32_div(magnitude, norm));
}

#endif

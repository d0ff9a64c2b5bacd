/*
 * encode_element.h - one code, for the scalar definition and for devices
 *
 * docs/NUMERICS.md has the rules in words.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_ENCODE_ELEMENT_H
#define COMPUTE_ENCODE_ELEMENT_H

#include "compute/element.h"
#include "compute/encode_bounds.h"
#include "compute/quant.h"

/* Of ascending bounds, those that are less than x. */
COMPUTE_SHARED unsigned encode_rank(const float *bounds, unsigned count, float x)
{
    unsigned rank = 0;

#if ROUNDED_ON_DEVICE
#pragma unroll
#endif
    for (unsigned i = 0; i < count;
         i++) /* no bound is jumped over: on a device all cost one step */
        rank += x > bounds[i];
    return rank;
}

/* Larger of a magnitude so far and |x|, a NaN left out. */
COMPUTE_SHARED float encode_larger(float absmax, float x)
{
    return fmaxf(absmax, fabsf(x));
}

/* NF4 or FP4 of bitsandbytes; `inverse` is fl(1 / absmax). */
COMPUTE_SHARED unsigned encode_bnb4_code(enum quant_codes codes, float x, float inverse)
{
    const float nf4[] = ENCODE_NF4_BOUNDS;
    const float fp4[] = ENCODE_FP4_BOUNDS;
    float v = f32_mul(x, inverse);

    if (!element_is_finite(inverse))
        return codes == QUANT_NF4 ? ENCODE_NF4_ZERO : 0;
    if (codes == QUANT_NF4)
        return encode_rank(nf4, 15, v);
    return (ENCODE_FP4_CODES >> 4 * encode_rank(fp4, 7, fabsf(v)) & 7u) |
           (v < 0.0f ? ENCODE_FP4_NEGATIVE : 0);
}

COMPUTE_SHARED unsigned encode_e2m1_code(float x, float scale)
{
    const float bounds[] = ENCODE_E2M1_BOUNDS;
    float v = f32_div(x, scale);

    if (scale == 0.0f || v != v)
        return 0;
    return encode_rank(bounds, 7, fabsf(v)) | (f32_bits(v) >> 31 ? ENCODE_FP4_NEGATIVE : 0);
}

COMPUTE_SHARED uint8_t encode_e4m3_code(float x, float scale)
{
    if (scale == 0.0f && x == x)
        return 0;
    return e4m3_encode(f32_bits(f32_div(x, scale)));
}

/* LLM.int8, of a number rounded to F16. */
COMPUTE_SHARED uint8_t encode_row_code(float half, float scale)
{
    float factor = f32_div(127.0f, scale);
    float v = f32_mul(half, factor);

    if (!element_is_finite(factor) || v != v)
        return 0;
    return (uint8_t)(int)rintf(fminf(fmaxf(v, -127.0f), 127.0f));
}

/* Integers of 8 bits. */
COMPUTE_SHARED uint8_t encode_int8_code(float x, float scale)
{
    float v = f32_div(x, scale);

    if (scale == 0.0f || v != v)
        return 0;
    return (uint8_t)(int)rintf(fminf(fmaxf(v, -128.0f), 127.0f));
}

/* The number that is encoded: for LLM.int8 x as F16. */
COMPUTE_SHARED float encode_taken(enum quant_codes codes, float x)
{
    if (codes != QUANT_SIGNED)
        return x;
    return f32_from_bits(element_round(DTYPE_F16, f32_bits(x)));
}

/* The code of what was taken, as encode_ops.scaled() has it. */
COMPUTE_SHARED uint8_t encode_scaled_code(enum quant_codes codes, float taken, float scale)
{
    if (codes == QUANT_E2M1)
        return (uint8_t)encode_e2m1_code(taken, scale);
    if (codes == QUANT_E4M3)
        return encode_e4m3_code(taken, scale);
    return encode_row_code(taken, scale);
}

#endif

/*
 * encode_scalar.c - the definition of what encode.h encodes
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/element.h"
#include "compute/encode.h"
#include "compute/encode_bounds.h"
#include "compute/quant_layout.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "docs/NUMERICS.md fixes every rounding: no -ffast-math, no x87"
#endif

/*
 * As the CUDA kernels of bitsandbytes have them, in nine digits, which say a float however they are
 * read.  Those of NF4 are midpoints but for the last bit of four, those of FP4 nearly.
 */
const float encode_nf4_bounds[15] = {
    -0.84809643f,  -0.610632896f,  -0.45999527f,  -0.33967942f, -0.234607399f,
    -0.137911737f, -0.0455250181f, 0.0397901498f, 0.120255254f, 0.203521252f,
    0.292013764f,  0.389312536f,   0.501663387f,  0.64278692f,  0.861478388f,
};
const float encode_fp4_bounds[7] = { 0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                     0.4166667f,  0.583333f,  0.8333333f };
const uint8_t encode_fp4_codes[8] = { 0, 1, 6, 7, 4, 5, 2, 3 };

/* Midpoints; where the code above is the even one it takes the tie, so the bound is one step less.
 */
const float encode_e2m1_bounds[7] = { 0.25f, 0x1.7ffffep-1f, 1.25f, 0x1.bffffep0f,
                                      2.5f,  0x1.bffffep1f,  5.0f };

static unsigned rank_of(const float *bounds, unsigned count, float x)
{
    unsigned rank = 0;

    while (rank < count && x > bounds[rank])
        rank++;
    return rank;
}

static size_t lesser(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* A code of four bits, into a half of a byte that others may share. */
static void put_half(uint8_t *out, size_t i, bool high_first, unsigned code)
{
    unsigned shift = (i % 2 == 0) == high_first ? 4 : 0;

    if (i % 2 == 0)
        out[i / 2] = 0;
    out[i / 2] |= (uint8_t)(code << shift);
}

static float absmax_of(const float *src, size_t count)
{
    float absmax = 0.0f;

    for (size_t i = 0; i < count; i++)
        absmax = fmaxf(absmax, fabsf(src[i]));
    return absmax;
}

static void absmax(float *out, const float *src, size_t count, size_t block)
{
    for (size_t first = 0; first < count; first += block)
        *out++ = absmax_of(src + first, lesser(block, count - first));
}

static unsigned bnb4_code(enum quant_codes codes, float x, float inverse)
{
    float v = x * inverse;

    if (!element_is_finite(inverse))
        return codes == QUANT_NF4 ? ENCODE_NF4_ZERO : 0;
    if (codes == QUANT_NF4)
        return rank_of(encode_nf4_bounds, 15, v);
    return encode_fp4_codes[rank_of(encode_fp4_bounds, 7, fabsf(v))] |
           (v < 0.0f ? ENCODE_FP4_NEGATIVE : 0);
}

static size_t bnb4(uint8_t *out, float *absmaxes, enum quant_codes codes, const float *src,
                   size_t count, size_t block)
{
    size_t bad = FOLD_FINITE;
    float inverse = 0.0f;

    absmax(absmaxes, src, count, block);
    for (size_t i = 0; i < count; i++) {
        if (i % block == 0)
            inverse = 1.0f / absmaxes[i / block];
        put_half(out, i, true, bnb4_code(codes, src[i], inverse));
        if (!element_is_finite(src[i]) && bad == FOLD_FINITE)
            bad = i;
    }
    if (count % 2 && codes == QUANT_NF4)
        put_half(out, count, true, ENCODE_NF4_ZERO);
    return bad;
}

static size_t bnb4_round_trip(float *dst, enum quant_codes codes, enum dtype result_dtype,
                              const float *src, size_t count, size_t block)
{
    size_t bad = FOLD_FINITE;
    float largest = 0.0f;

    for (size_t i = 0; i < count; i++) {
        bool bad_here = !element_is_finite(src[i]);
        float w;

        if (i % block == 0) /* before dst, which src may be, is written */
            largest = absmax_of(src + i, lesser(block, count - i));
        w = quant_tables[codes][bnb4_code(codes, src[i], 1.0f / largest)] * largest;
        dst[i] = f32_from_bits(element_round(result_dtype, f32_bits(w)));
        if ((bad_here || !element_is_finite(dst[i])) && bad == FOLD_FINITE)
            bad = i;
    }
    return bad;
}

static unsigned e2m1_code(float x, float scale)
{
    float v = x / scale;

    if (scale == 0.0f || isnan(v))
        return 0;
    return rank_of(encode_e2m1_bounds, 7, fabsf(v)) | (signbit(v) ? ENCODE_FP4_NEGATIVE : 0);
}

static int int8_code(float half, float scale)
{
    float factor = 127.0f / scale;
    float v = half * factor;

    if (!element_is_finite(factor) || isnan(v))
        return 0;
    return (int)rintf(fminf(fmaxf(v, -127.0f), 127.0f));
}

static size_t scaled(uint8_t *out, enum quant_codes codes, const float *src, size_t count,
                     const float *scales, size_t block)
{
    size_t bad = FOLD_FINITE;

    for (size_t i = 0; i < count; i++) {
        float scale = scales[i / block];
        float x = src[i];

        if (codes == QUANT_SIGNED)
            x = f32_from_bits(element_round(DTYPE_F16, f32_bits(x)));
        if (codes == QUANT_E2M1)
            put_half(out, i, false, e2m1_code(x, scale));
        else if (codes == QUANT_E4M3)
            out[i] = scale == 0.0f && !isnan(x) ? 0 : e4m3_encode(f32_bits(x / scale));
        else
            out[i] = (uint8_t)int8_code(x, scale);
        if (!element_is_finite(x) && bad == FOLD_FINITE)
            bad = i;
    }
    return bad;
}

const struct encode_ops encode_scalar = {
    .name = "scalar",
    .absmax = absmax,
    .bnb4 = bnb4,
    .bnb4_round_trip = bnb4_round_trip,
    .scaled = scaled,
};

/*
 * encode_scalar.c - the definition of what encode.h encodes
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/encode.h"
#include "compute/encode_element.h"
#include "compute/quant_layout.h"

#include <float.h>
#include <stdbool.h>
#include <string.h>

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "docs/NUMERICS.md fixes every rounding: no -ffast-math, no x87"
#endif

const float encode_nf4_bounds[15] = ENCODE_NF4_BOUNDS;
const float encode_fp4_bounds[7] = ENCODE_FP4_BOUNDS;
const uint8_t encode_fp4_codes[8] = { 0, 1, 6, 7, 4, 5, 2, 3 }; /* ENCODE_FP4_CODES */
const float encode_e2m1_bounds[7] = ENCODE_E2M1_BOUNDS;

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
        absmax = encode_larger(absmax, src[i]);
    return absmax;
}

static void absmax(float *out, const float *src, size_t count, size_t block)
{
    for (size_t first = 0; first < count; first += block)
        *out++ = absmax_of(src + first, lesser(block, count - first));
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
        put_half(out, i, true, encode_bnb4_code(codes, src[i], inverse));
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
        w = quant_tables[codes][encode_bnb4_code(codes, src[i], 1.0f / largest)] * largest;
        dst[i] = f32_from_bits(element_round(result_dtype, f32_bits(w)));
        if ((bad_here || !element_is_finite(dst[i])) && bad == FOLD_FINITE)
            bad = i;
    }
    return bad;
}

static size_t scaled(uint8_t *out, enum quant_codes codes, const float *src, size_t count,
                     const float *scales, size_t block)
{
    size_t bad = FOLD_FINITE;

    for (size_t i = 0; i < count; i++) {
        float scale = scales[i / block];
        float x = encode_taken(codes, src[i]);
        uint8_t code = encode_scaled_code(codes, x, scale);

        if (codes == QUANT_E2M1)
            put_half(out, i, false, code);
        else
            out[i] = code;
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

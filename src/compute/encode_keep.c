/*
 * encode_keep.c - scales of a base's own scheme, and integers of 8 bits
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/encode.h"
#include "compute/encode_element.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define E4M3_LARGEST 0x7eu
#define E8M0_LARGEST 254u
#define E8M0_BIAS 127
#define INT8_KEPT 127.5f /* of a scale: half a step more than the largest code */
#define E2M1_KEPT 7.0f   /* the same of E2M1 */

static float widened(const uint8_t *stored, enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_BF16:
        return f32_from_bits(bf16_decode((uint16_t)(stored[0] | stored[1] << 8)));
    case DTYPE_F16:
        return f32_from_bits(f16_decode((uint16_t)(stored[0] | stored[1] << 8)));
    case DTYPE_F8_E4M3:
        return f32_from_bits(e4m3_decode(stored[0]));
    case DTYPE_F8_E8M0:
        return stored[0] > E8M0_LARGEST ? NAN : ldexpf(1.0f, stored[0] - E8M0_BIAS);
    default:
        return f32_from_bits((uint32_t)stored[0] | (uint32_t)stored[1] << 8 |
                             (uint32_t)stored[2] << 16 | (uint32_t)stored[3] << 24);
    }
}

/* `value` is one of the dtype. */
static void narrowed(uint8_t *out, float value, enum dtype dtype)
{
    uint32_t bits = f32_bits(value);
    size_t bytes = 4;
    int exponent;

    if (dtype == DTYPE_F8_E8M0) {
        frexpf(value, &exponent);
        bits = (uint32_t)(exponent - 1 + E8M0_BIAS);
        bytes = 1;
    } else if (dtype == DTYPE_BF16 || dtype == DTYPE_F16) {
        bits = dtype == DTYPE_BF16 ? bf16_encode(bits) : f16_encode(bits);
        bytes = 2;
    }
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(bits >> 8 * i);
}

static bool is_power_of_two(float x)
{
    int exponent;

    return x > 0.0f && frexpf(x, &exponent) == 0.5f;
}

/* Where all scales are powers of two the code that reads them may rely on it. */
static float keep_fp8(float base, float amax, enum dtype dtype)
{
    return encode_fp8_keep(base, amax,
                           dtype == DTYPE_F32 && is_power_of_two(base) ? DTYPE_F8_E8M0 : dtype);
}

/* SCB is the largest magnitude as F16. */
static float keep_row(float base, float amax)
{
    float half = f32_from_bits(f16_decode(f16_encode(f32_bits(fminf(amax, 65504.0f)))));

    return half <= base ? base : half;
}

static float keep_int8(float base, float amax, enum dtype dtype)
{
    return amax <= INT8_KEPT * base ? base : encode_int8_scale(amax, dtype);
}

static bool keep_nvfp4(uint8_t *out, uint8_t base, float amax, const struct quant_matrix *matrix,
                       float whole)
{
    uint8_t code = encode_nvfp4_keep(base, amax, matrix->scale, whole);

    /* The nearest may be far below where steps are subnormal. */
    while (code < E4M3_LARGEST && amax > E2M1_KEPT * encode_nvfp4_step(code, matrix->scale, whole))
        code++;
    *out = code;
    return amax <= E2M1_KEPT * encode_nvfp4_step(code, matrix->scale, whole);
}

static uint8_t keep_mxfp4(uint8_t base, float amax)
{
    uint8_t code = encode_mxfp4_keep(base, amax);

    if (code < E8M0_LARGEST && amax > ldexpf(E2M1_KEPT, code - E8M0_BIAS))
        code++;
    return code;
}

bool encode_keep(uint8_t *out, const uint8_t *base, float amax, const struct quant_matrix *matrix,
                 float whole)
{
    enum dtype dtype = matrix->scale_dtype;
    float kept = widened(base, dtype);
    float scale;

    amax = fminf(amax, FLT_MAX);
    if (matrix->codes == QUANT_E2M1 && dtype == DTYPE_F8_E4M3)
        return keep_nvfp4(out, *base, amax, matrix, whole);
    if (matrix->codes == QUANT_E2M1) {
        *out = keep_mxfp4(*base, amax);
        return true;
    }
    if (matrix->codes == QUANT_E4M3)
        scale = keep_fp8(kept, amax, dtype);
    else if (matrix->scale == QUANT_SCALE_ROW_127)
        scale = keep_row(kept, amax);
    else
        scale = keep_int8(kept, amax, dtype);
    narrowed(out, scale, dtype);
    return true;
}

float encode_step(const uint8_t *stored, const struct quant_matrix *matrix, float whole)
{
    if (matrix->scale_dtype == DTYPE_F8_E4M3)
        return encode_nvfp4_step(*stored, matrix->scale, whole);
    return widened(stored, matrix->scale_dtype);
}

void encode_int8(uint8_t *out, const float *src, size_t count, const float *scales, size_t block)
{
    for (size_t i = 0; i < count; i++)
        out[i] = encode_int8_code(src[i], scales[i / block]);
}

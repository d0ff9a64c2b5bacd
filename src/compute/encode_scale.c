/*
 * encode_scale.c - scales for blocks that are encoded
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/convert.h"
#include "compute/encode.h"

#include <math.h>

#define E2M1_MAX 6.0f
#define E4M3_MAX_FLOAT 448.0f
#define INT8_MAX_FLOAT 127.0f

uint8_t encode_mxfp4_scale(float amax)
{
    int exponent;

    if (amax == 0.0f)
        return 0;
    frexpf(amax, &exponent);
    exponent += 127 - 1 - 2; /* frexp() counts from 0.5; 4 = 2^2 is E2M1's largest power of two */
    return (uint8_t)(exponent < 0 ? 0 : exponent);
}

uint8_t encode_mxfp4_keep(uint8_t base, float amax)
{
    uint8_t fresh = encode_mxfp4_scale(amax);

    return fresh > base ? fresh : base;
}

float encode_nvfp4_step(uint8_t code, enum quant_scale scale, float whole)
{
    float stored = f32_from_bits(e4m3_decode(code));

    return scale == QUANT_SCALE_OVER_WHOLE ? stored / whole : stored * whole;
}

uint8_t encode_nvfp4_keep(uint8_t base, float amax, enum quant_scale scale, float whole)
{
    float step = amax / E2M1_MAX;

    if (amax <= E2M1_MAX * encode_nvfp4_step(base, scale, whole))
        return base;
    return e4m3_encode(f32_bits(scale == QUANT_SCALE_OVER_WHOLE ? step * whole : step / whole));
}

/* The least power of two that is not below x > 0, in the range of F8_E8M0. */
static float power_of_two_above(float x)
{
    int exponent;

    if (frexpf(x, &exponent) == 0.5f)
        exponent--;
    return ldexpf(1.0f, exponent < -127 ? -127 : exponent);
}

static float limited(float x, float least, float largest)
{
    return x < least ? least : x > largest ? largest : x;
}

static float fresh_scale(float amax, float largest, enum dtype dtype)
{
    float scale = amax / largest;

    if (amax == 0.0f)
        return 1.0f;
    switch (dtype) {
    case DTYPE_F8_E8M0:
        return power_of_two_above(limited(scale, 0x1p-127f, 0x1p127f));
    case DTYPE_BF16:
        scale = f32_from_bits(bf16_decode(bf16_encode(f32_bits(scale))));
        return limited(scale, 0x1p-133f, 0x1.fep127f);
    case DTYPE_F16:
        scale = f32_from_bits(f16_decode(f16_encode(f32_bits(scale))));
        return limited(scale, 0x1p-24f, 65504.0f);
    default:
        return limited(scale, 0x1p-149f, 0x1.fffffep127f);
    }
}

float encode_fp8_scale(float amax, enum dtype dtype)
{
    return fresh_scale(amax, E4M3_MAX_FLOAT, dtype);
}

float encode_int8_scale(float amax, enum dtype dtype)
{
    return fresh_scale(amax, INT8_MAX_FLOAT, dtype);
}

float encode_fp8_keep(float base, float amax, enum dtype dtype)
{
    return amax <= E4M3_MAX_FLOAT * base ? base : encode_fp8_scale(amax, dtype);
}

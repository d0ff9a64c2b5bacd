/*
 * convert.h - BF16, F16, E4M3 and E8M0 to and from fp32, on bit patterns
 *
 * Integer arithmetic only, so that no compiler flag, rounding mode or flush to
 * zero changes a result.  Every rounding is to nearest, ties to even; a NaN
 * becomes the canonical one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_CONVERT_H
#define COMPUTE_CONVERT_H

#include "compute/rounded.h"

#include <stdint.h>
#include <string.h>

#define BF16_NAN 0x7fc0u
#define F16_NAN 0x7e00u
#define E4M3_NAN 0x7fu
#define F32_NAN 0x7fc00000u

#define F64_NAN UINT64_C(0x7ff8000000000000)

#define F64_MAGNITUDE UINT64_C(0x7fffffffffffffff)
#define F64_INFINITY UINT64_C(0x7ff0000000000000)

#define F32_MAGNITUDE 0x7fffffffu
#define F32_INFINITY 0x7f800000u

/* The least magnitudes that round to infinity: half a step above the largest finite number. */
#define BF16_OVERFLOW 0x7f7f8000u
#define F16_OVERFLOW 0x477ff000u /* 65520 */
#define F32_OVERFLOW F32_INFINITY

#define E4M3_MAX 0x7eu           /* 448: there is no infinity */
#define E4M3_MAX_F32 0x43e00000u /* the same as fp32 */

COMPUTE_SHARED uint32_t f32_bits(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

COMPUTE_SHARED float f32_from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* value / 2^shift, rounded; shift is 1..31 and the value below 2^31. */
COMPUTE_SHARED uint32_t shift_right_even(uint32_t value, unsigned shift)
{
    uint32_t below_half = (1u << (shift - 1)) - 1;

    return (value + below_half + (value >> shift & 1u)) >> shift;
}

/* The fp32 pattern of the same number; a NaN keeps its payload. */
COMPUTE_SHARED uint32_t bf16_decode(uint16_t bf16)
{
    return (uint32_t)bf16 << 16;
}

/* The fp32 pattern of the same number; a NaN keeps its payload and becomes quiet. */
COMPUTE_SHARED uint32_t f16_decode(uint16_t f16)
{
    uint32_t sign = (uint32_t)(f16 & 0x8000u) << 16;
    uint32_t magnitude = f16 & 0x7fffu;
    uint32_t exponent = 113; /* fp32's exponent field for 2^-14, the smallest normal F16 */

    if (magnitude > 0x7c00u)
        return sign | F32_NAN | (magnitude & 0x3ffu) << 13;
    if (magnitude == 0x7c00u)
        return sign | F32_INFINITY;
    if (magnitude >= 0x400u)
        return sign | ((magnitude << 13) + (112u << 23));
    if (magnitude == 0)
        return sign;
    while (magnitude < 0x400u) {
        magnitude <<= 1;
        exponent--;
    }
    return sign | exponent << 23 | (magnitude & 0x3ffu) << 13;
}

COMPUTE_SHARED uint16_t bf16_encode(uint32_t f32)
{
    uint32_t sign = f32 >> 16 & 0x8000u;
    uint32_t magnitude = f32 & F32_MAGNITUDE;

    if (magnitude > F32_INFINITY)
        return BF16_NAN;
    return (uint16_t)(sign | shift_right_even(magnitude, 16));
}

COMPUTE_SHARED uint16_t f16_encode(uint32_t f32)
{
    uint32_t sign = f32 >> 16 & 0x8000u;
    uint32_t magnitude = f32 & F32_MAGNITUDE;
    uint32_t exponent = magnitude >> 23;

    if (magnitude > F32_INFINITY)
        return F16_NAN;
    if (magnitude >= F16_OVERFLOW)
        return (uint16_t)(sign | 0x7c00u);
    if (exponent >= 113)
        return (uint16_t)(sign | shift_right_even(magnitude - (112u << 23), 13));
    if (exponent < 102) /* below 2^-25, half of the smallest subnormal */
        return (uint16_t)sign;
    /* The unit of a subnormal is 2^-24, that of the significand 2^(exponent - 150). */
    return (uint16_t)(sign | shift_right_even((magnitude & 0x7fffffu) | 0x800000u, 126 - exponent));
}

/* F8_E4M3; the fp32 pattern of the same number, a NaN as the canonical one. */
COMPUTE_SHARED uint32_t e4m3_decode(uint8_t e4m3)
{
    uint32_t sign = (uint32_t)(e4m3 & 0x80u) << 24;
    uint32_t magnitude = e4m3 & 0x7fu;
    uint32_t exponent = 121; /* fp32's exponent field for 2^-6, the smallest normal E4M3 */

    if (magnitude == E4M3_NAN)
        return F32_NAN;
    if (magnitude >= 8)
        return sign | ((magnitude << 20) + (120u << 23));
    if (magnitude == 0)
        return sign;
    while (magnitude < 8) {
        magnitude <<= 1;
        exponent--;
    }
    return sign | exponent << 23 | (magnitude & 7u) << 20;
}

/* What is beyond 448, infinity included, becomes 448. */
COMPUTE_SHARED uint8_t e4m3_encode(uint32_t f32)
{
    uint32_t sign = f32 >> 24 & 0x80u;
    uint32_t magnitude = f32 & F32_MAGNITUDE;
    uint32_t exponent = magnitude >> 23;

    if (magnitude > F32_INFINITY)
        return E4M3_NAN;
    if (magnitude >= E4M3_MAX_F32)
        return (uint8_t)(sign | E4M3_MAX);
    if (exponent >= 121)
        return (uint8_t)(sign | shift_right_even(magnitude - (120u << 23), 20));
    if (exponent < 117) /* below 2^-10, half of the smallest subnormal */
        return (uint8_t)sign;
    /* The unit of a subnormal is 2^-9, that of the significand 2^(exponent - 150). */
    return (uint8_t)(sign | shift_right_even((magnitude & 0x7fffffu) | 0x800000u, 141 - exponent));
}

/* F8_E8M0: 2^(e8m0 - 127), of which that of 0 is subnormal; 255 is NaN. */
COMPUTE_SHARED uint32_t e8m0_decode(uint8_t e8m0)
{
    if (e8m0 == 255)
        return F32_NAN;
    return e8m0 ? (uint32_t)e8m0 << 23 : 1u << 22;
}

/* Of a power of two that F8_E8M0 has. */
COMPUTE_SHARED uint8_t e8m0_encode(uint32_t f32)
{
    return (uint8_t)(f32 >> 23);
}

/* The same pattern, a NaN as the canonical one. */
COMPUTE_SHARED uint32_t f32_encode(uint32_t f32)
{
    return (f32 & F32_MAGNITUDE) > F32_INFINITY ? F32_NAN : f32;
}

/* The same number, a NaN as the canonical one; likewise f64_canonical(). */
COMPUTE_SHARED float f32_canonical(float value)
{
    return f32_from_bits(f32_encode(f32_bits(value)));
}

COMPUTE_SHARED double f64_canonical(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    if ((bits & F64_MAGNITUDE) > F64_INFINITY)
        bits = F64_NAN;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

#endif

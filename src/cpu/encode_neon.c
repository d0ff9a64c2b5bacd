/*
 * encode_neon.c - the encode operations for aarch64
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"
#include "cpu/lanes_neon.h"

#define ENCODE_TABLE encode_neon
#define ENCODE_NAME "neon"
#define ENCODE_CODES uint32x4_t
#define ENCODE_OCTET uint8x16x2_t

static inline float32x4_t e_div(float32x4_t x, float32x4_t y)
{
    return vdivq_f32(x, y);
}

static inline float32x4_t e_abs(float32x4_t x)
{
    return vabsq_f32(x);
}

/* As bytes: number n is bytes 4 n to 4 n + 3. */
static inline uint8x16x2_t e_octet(const float table[8])
{
    const uint8_t *bytes = (const uint8_t *)table;

    return (uint8x16x2_t){ { vld1q_u8(bytes), vld1q_u8(bytes + 16) } };
}

static inline uint32x4_t e_zero(void)
{
    return vdupq_n_u32(0);
}

static inline uint32x4_t e_or(uint32x4_t x, uint32x4_t y)
{
    return vorrq_u32(x, y);
}

static inline uint32x4_t e_pick(uint8x16x2_t octet, uint32x4_t codes)
{
    uint32x4_t place = vaddq_u32(vmulq_n_u32(codes, 0x04040404), vdupq_n_u32(0x03020100));

    return vreinterpretq_u32_u8(vqtbl2q_u8(octet, vreinterpretq_u8_u32(place)));
}

static inline uint32x4_t e_descend(uint32x4_t codes, float32x4_t v, uint8x16x2_t octet)
{
    uint32x4_t above = vcgtq_f32(v, vreinterpretq_f32_u32(e_pick(octet, codes)));

    return vsubq_u32(vaddq_u32(codes, codes), above); /* true is -1 */
}

static inline uint32x4_t e_below_zero(float32x4_t v)
{
    return vandq_u32(vcltzq_f32(v), vdupq_n_u32(8));
}

static inline uint32x4_t e_sign(float32x4_t v)
{
    return vshlq_n_u32(vshrq_n_u32(vreinterpretq_u32_f32(v), 31), 3);
}

/*
 * Normal numbers are rounded as integers.  Below 2^-6 the sum with 2^14, whose last bit is 2^-9, is
 * rounded to the step of subnormals.
 */
static inline uint32x4_t e_e4m3(float32x4_t v)
{
    uint32x4_t sign = vshlq_n_u32(vshrq_n_u32(vreinterpretq_u32_f32(v), 31), 7);
    float32x4_t magnitude = vminq_f32(vabsq_f32(v), vdupq_n_f32(448.0f));
    uint32x4_t bits = vreinterpretq_u32_f32(magnitude);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 20), vdupq_n_u32(1));
    float32x4_t sum = vaddq_f32(magnitude, vdupq_n_f32(0x1p14f));
    uint32x4_t small = vsubq_u32(vreinterpretq_u32_f32(sum), vdupq_n_u32(0x46800000));
    uint32x4_t is_small = vcltq_f32(magnitude, vdupq_n_f32(0x1p-6f));

    bits = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7ffff)), odd);
    bits = vsubq_u32(vshrq_n_u32(bits, 20), vdupq_n_u32(120 << 3));
    return vorrq_u32(vbslq_u32(is_small, small, bits), sign);
}

static inline uint32x4_t e_int8(float32x4_t v)
{
    float32x4_t limited = vmaxq_f32(vminq_f32(v, vdupq_n_f32(127.0f)), vdupq_n_f32(-127.0f));

    return vreinterpretq_u32_s32(vcvtnq_s32_f32(limited));
}

static inline void e_store(uint8_t *out, uint32x4_t codes)
{
    uint16x4_t words = vmovn_u32(codes);
    uint8x8_t bytes = vmovn_u16(vcombine_u16(words, words));
    uint32_t word = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);

    memcpy(out, &word, sizeof(word));
}

static inline void e_halves(uint8_t out[16], const uint8_t src[32], bool high_first)
{
    uint8x16_t low = vld1q_u8(src);
    uint8x16_t high = vld1q_u8(src + 16);
    uint8x16_t even = vuzp1q_u8(low, high);
    uint8x16_t odd = vuzp2q_u8(low, high);

    vst1q_u8(out,
             high_first ? vorrq_u8(vshlq_n_u8(even, 4), odd) : vorrq_u8(vshlq_n_u8(odd, 4), even));
}

#include "cpu/encode_template.h"

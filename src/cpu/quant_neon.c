/*
 * quant_neon.c - the quant operations for aarch64
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"

#include <arm_neon.h>
#include <string.h>

#define QUANT_TABLE quant_neon
#define QUANT_NAME "neon"
#define QUANT_FOLD fold_neon
#define QUANT_VECTOR float32x4_t
#define QUANT_WIDTH 4
#define QUANT_NUMBERS uint8x16x4_t

static inline float32x4_t q_set(float x)
{
    return vdupq_n_f32(x);
}

static inline float32x4_t q_load(const float *src)
{
    return vld1q_f32(src);
}

static inline void q_store(float *dst, float32x4_t x)
{
    vst1q_f32(dst, x);
}

static inline float32x4_t q_mul(float32x4_t x, float32x4_t y)
{
    return vmulq_f32(x, y);
}

static inline float32x4_t q_sub(float32x4_t x, float32x4_t y)
{
    return vsubq_f32(x, y);
}

static inline float32x4_t q_peak(float32x4_t peak, float32x4_t x)
{
    uint32x4_t magnitude = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fffffff));

    return vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(peak), magnitude));
}

static inline bool q_reaches(float32x4_t peak, uint32_t limit)
{
    return vmaxvq_u32(vreinterpretq_u32_f32(peak)) >= limit;
}

static inline float32x4_t q_round_bf16(float32x4_t x)
{
    uint32x4_t bits = vreinterpretq_u32_f32(x);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));

    bits = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    return vreinterpretq_f32_u32(vandq_u32(bits, vdupq_n_u32(0xffff0000)));
}

static inline float32x4_t q_round_f16(float32x4_t x)
{
    return vcvt_f32_f16(vcvt_f16_f32(x));
}

/* As bytes: number n is bytes 4 n to 4 n + 3. */
static inline uint8x16x4_t q_numbers(const float table[16])
{
    const uint8_t *bytes = (const uint8_t *)table;

    return (uint8x16x4_t){ { vld1q_u8(bytes), vld1q_u8(bytes + 16), vld1q_u8(bytes + 32),
                             vld1q_u8(bytes + 48) } };
}

/* Four bytes, widened. */
static inline uint32x4_t four_codes(const uint8_t *codes)
{
    uint32_t word;
    uint8x8_t bytes;

    memcpy(&word, codes, sizeof(word));
    bytes = vreinterpret_u8_u32(vdup_n_u32(word));
    return vmovl_u16(vget_low_u16(vmovl_u8(bytes)));
}

static inline float32x4_t q_lookup(uint8x16x4_t numbers, const uint8_t *codes)
{
    uint32x4_t place = vmulq_n_u32(four_codes(codes), 0x04040404);
    uint8x16_t bytes = vreinterpretq_u8_u32(vaddq_u32(place, vdupq_n_u32(0x03020100)));

    return vreinterpretq_f32_u8(vqtbl4q_u8(numbers, bytes));
}

static inline float32x4_t q_signed(const uint8_t *codes)
{
    int32x4_t wide = vreinterpretq_s32_u32(four_codes(codes));

    return vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(wide, 24), 24));
}

static inline float32x4_t q_unsigned(const uint8_t *codes)
{
    return vcvtq_f32_u32(four_codes(codes));
}

/*
 * Its fields, put where F16 has them, are the number divided by 2^8, the difference of the biases;
 * subnormals too.  What F16 makes of 7f is 480, which is larger than any E4M3.
 */
static inline float32x4_t q_e4m3(const uint8_t *codes)
{
    uint16x4_t wide = vmovn_u32(four_codes(codes));
    uint16x4_t sign = vshl_n_u16(vand_u16(wide, vdup_n_u16(0x80)), 8);
    uint16x4_t half = vorr_u16(vshl_n_u16(vand_u16(wide, vdup_n_u16(0x7f)), 7), sign);
    float32x4_t x = vmulq_n_f32(vcvt_f32_f16(vreinterpret_f16_u16(half)), 256.0f);
    uint32x4_t nan = vceqq_f32(vabsq_f32(x), vdupq_n_f32(480.0f));

    return vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(x), nan));
}

static inline void q_nibbles(uint8_t out[32], const uint8_t src[16], bool high_first)
{
    uint8x16_t bytes = vld1q_u8(src);
    uint8x16_t low = vandq_u8(bytes, vdupq_n_u8(15));
    uint8x16_t high = vshrq_n_u8(bytes, 4);
    uint8x16_t first = high_first ? high : low;
    uint8x16_t second = high_first ? low : high;

    vst1q_u8(out, vzip1q_u8(first, second));
    vst1q_u8(out + 16, vzip2q_u8(first, second));
}

#include "cpu/quant_template.h"

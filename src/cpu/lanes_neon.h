/*
 * lanes_neon.h - what quantised formats need of NEON, both ways
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CPU_LANES_NEON_H
#define CPU_LANES_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

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

static inline uint32_t q_greatest(float32x4_t x)
{
    return vmaxvq_u32(vreinterpretq_u32_f32(x));
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

#endif

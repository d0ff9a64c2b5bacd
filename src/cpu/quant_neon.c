/*
 * quant_neon.c - the quant operations for aarch64
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"
#include "cpu/lanes_neon.h"

#define QUANT_TABLE quant_neon
#define QUANT_NAME "neon"
#define QUANT_FOLD fold_neon

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

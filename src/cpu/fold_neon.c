/*
 * fold_neon.c - the fold operations for aarch64
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"

#include <arm_neon.h>

#define FOLD_TABLE fold_neon
#define FOLD_NAME "neon"
#define FOLD_VECTOR float32x4_t
#define FOLD_WIDTH 4
#define FOLD_DOUBLES float64x2_t
/* 20 sums, four vectors of A and five of B fit into 32 registers; with six rows gcc 12 spills. */
#define FOLD_ROWS 5
#define FOLD_ROWS_SMALL 2
#define FOLD_TILE_COLS 16

static inline float32x4_t v_zero(void)
{
    return vdupq_n_f32(0.0f);
}

static inline float32x4_t v_set(float x)
{
    return vdupq_n_f32(x);
}

static inline float32x4_t v_load(const float *src)
{
    return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)src));
}

static inline void v_store(float *dst, float32x4_t x)
{
    vst1q_u8((uint8_t *)dst, vreinterpretq_u8_f32(x));
}

static inline float32x4_t v_add(float32x4_t x, float32x4_t y)
{
    return vaddq_f32(x, y);
}

static inline float32x4_t v_mul(float32x4_t x, float32x4_t y)
{
    return vmulq_f32(x, y);
}

static inline float32x4_t v_fma(float32x4_t x, float32x4_t y, float32x4_t z)
{
    return vfmaq_f32(z, x, y);
}

static inline float32x4_t v_peak(float32x4_t peak, float32x4_t x)
{
    uint32x4_t magnitude = vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x7fffffff));

    return vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(peak), magnitude));
}

static inline bool v_reaches(float32x4_t peak, uint32_t limit)
{
    return vmaxvq_u32(vreinterpretq_u32_f32(peak)) >= limit;
}

static inline float32x4_t v_canonical(float32x4_t x)
{
    return vbslq_f32(vceqq_f32(x, x), x, vreinterpretq_f32_u32(vdupq_n_u32(0x7fc00000)));
}

static inline float64x2_t d_load(const double *src)
{
    return vld1q_f64(src);
}

static inline void d_store(double *dst, float64x2_t x)
{
    vst1q_f64(dst, x);
}

static inline float64x2_t d_canonical(float64x2_t x)
{
    return vbslq_f64(vceqq_f64(x, x), x, vreinterpretq_f64_u64(vdupq_n_u64(0x7ff8000000000000)));
}

static inline float64x2_t d_lower(float32x4_t x)
{
    return vcvt_f64_f32(vget_low_f32(x));
}

static inline float64x2_t d_upper(float32x4_t x)
{
    return vcvt_high_f64_f32(x);
}

static inline float64x2_t d_add_square(float64x2_t sum, float64x2_t x)
{
    return vfmaq_f64(sum, x, x);
}

static inline void load_bf16(float32x4_t x[4], const unsigned char *src)
{
    for (size_t v = 0; v < 4; v += 2) {
        uint16x8_t half = vreinterpretq_u16_u8(vld1q_u8(src + 8 * v));

        x[v] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(half), 16));
        x[v + 1] = vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(half), 16));
    }
}

/* To nearest even, the result in the upper half of each word. */
static inline uint16x8_t round_bf16(float32x4_t x)
{
    uint32x4_t bits = vreinterpretq_u32_f32(x);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));

    return vreinterpretq_u16_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd));
}

static inline void store_bf16(unsigned char *dst, const float32x4_t x[4])
{
    for (size_t v = 0; v < 4; v += 2) {
        uint16x8_t half = vuzp2q_u16(round_bf16(x[v]), round_bf16(x[v + 1]));

        vst1q_u8(dst + 8 * v, vreinterpretq_u8_u16(half));
    }
}

static inline void load_f16(float32x4_t x[4], const unsigned char *src)
{
    for (size_t v = 0; v < 4; v += 2) {
        float16x8_t half = vreinterpretq_f16_u8(vld1q_u8(src + 8 * v));

        x[v] = vcvt_f32_f16(vget_low_f16(half));
        x[v + 1] = vcvt_high_f32_f16(half);
    }
}

static inline void store_f16(unsigned char *dst, const float32x4_t x[4])
{
    for (size_t v = 0; v < 4; v += 2) {
        float16x8_t half = vcvt_high_f16_f32(vcvt_f16_f32(x[v]), x[v + 1]);

        vst1q_u8(dst + 8 * v, vreinterpretq_u8_f16(half));
    }
}

#include "cpu/fold_template.h"

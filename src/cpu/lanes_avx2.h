/*
 * lanes_avx2.h - what quantised formats need of AVX2, FMA and F16C, both ways
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CPU_LANES_AVX2_H
#define CPU_LANES_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define QUANT_VECTOR __m256
#define QUANT_WIDTH 8
#define QUANT_NUMBERS struct numbers

struct numbers {
    __m256 low; /* of codes 0..7 */
    __m256 high;
};

static inline __m256 q_set(float x)
{
    return _mm256_set1_ps(x);
}

static inline __m256 q_load(const float *src)
{
    return _mm256_loadu_ps(src);
}

static inline void q_store(float *dst, __m256 x)
{
    _mm256_storeu_ps(dst, x);
}

static inline __m256 q_mul(__m256 x, __m256 y)
{
    return _mm256_mul_ps(x, y);
}

static inline __m256 q_sub(__m256 x, __m256 y)
{
    return _mm256_sub_ps(x, y);
}

static inline __m256 q_peak(__m256 peak, __m256 x)
{
    __m256i magnitude = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));

    return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(peak), magnitude));
}

/* Magnitudes and limits are below 2^31, so that the signed comparison serves. */
static inline uint32_t q_greatest(__m256 x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    __m128i two = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));

    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 0xb1)));
}

static inline bool q_reaches(__m256 peak, uint32_t limit)
{
    __m256i below = _mm256_set1_epi32((int)limit - 1);

    return _mm256_movemask_epi8(_mm256_cmpgt_epi32(_mm256_castps_si256(peak), below)) != 0;
}

static inline __m256 q_round_bf16(__m256 x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));

    bits = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    return _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32((int)0xffff0000)));
}

static inline __m256 q_round_f16(__m256 x)
{
    return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline struct numbers q_numbers(const float table[16])
{
    return (struct numbers){ _mm256_loadu_ps(table), _mm256_loadu_ps(table + 8) };
}

static inline __m128i eight_bytes(const uint8_t *src)
{
    return _mm_loadl_epi64((const __m128i *)(const void *)src);
}

static inline __m256 q_lookup(struct numbers numbers, const uint8_t *codes)
{
    __m256i index = _mm256_cvtepu8_epi32(eight_bytes(codes)); /* its low three bits are used */
    __m256 bit_3 = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));

    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(numbers.low, index),
                            _mm256_permutevar8x32_ps(numbers.high, index), bit_3);
}

#endif

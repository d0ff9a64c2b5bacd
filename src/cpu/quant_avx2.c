/*
 * quant_avx2.c - the quant operations with AVX2, FMA and F16C
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"

#include <immintrin.h>

#define QUANT_TABLE quant_avx2
#define QUANT_NAME "avx2"
#define QUANT_FOLD fold_avx2
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

static inline __m256 q_signed(const uint8_t *codes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight_bytes(codes)));
}

static inline __m256 q_unsigned(const uint8_t *codes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight_bytes(codes)));
}

/*
 * Its fields, put where F16 has them, are the number divided by 2^8, the difference of the biases;
 * subnormals too.  What F16 makes of 7f is 480, which is larger than any E4M3.
 */
static inline __m256 q_e4m3(const uint8_t *codes)
{
    __m128i wide = _mm_cvtepi8_epi16(eight_bytes(codes));
    __m128i half = _mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16((short)0xbf80));
    __m256 x = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0f));
    __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    __m256 nan = _mm256_cmp_ps(magnitude, _mm256_set1_ps(480.0f), _CMP_EQ_OQ);

    return _mm256_or_ps(x, nan);
}

static inline void q_nibbles(uint8_t out[32], const uint8_t src[16], bool high_first)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)src);
    __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(15));
    __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
    __m128i first = high_first ? high : low;
    __m128i second = high_first ? low : high;

    _mm_storeu_si128((__m128i *)(void *)out, _mm_unpacklo_epi8(first, second));
    _mm_storeu_si128((__m128i *)(void *)(out + 16), _mm_unpackhi_epi8(first, second));
}

#include "cpu/quant_template.h"

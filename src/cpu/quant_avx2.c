/*
 * quant_avx2.c - the quant operations with AVX2, FMA and F16C
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"
#include "cpu/lanes_avx2.h"

#define QUANT_TABLE quant_avx2
#define QUANT_NAME "avx2"
#define QUANT_FOLD fold_avx2

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

/*
 * encode_avx2.c - the encode operations with AVX2, FMA and F16C
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"
#include "cpu/lanes_avx2.h"

#define ENCODE_TABLE encode_avx2
#define ENCODE_NAME "avx2"
#define ENCODE_CODES __m256i
#define ENCODE_OCTET __m256

static inline __m256 e_div(__m256 x, __m256 y)
{
    return _mm256_div_ps(x, y);
}

static inline __m256 e_abs(__m256 x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

static inline __m256 e_octet(const float table[8])
{
    return _mm256_loadu_ps(table);
}

static inline __m256i e_zero(void)
{
    return _mm256_setzero_si256();
}

static inline __m256i e_or(__m256i x, __m256i y)
{
    return _mm256_or_si256(x, y);
}

static inline __m256i e_descend(__m256i codes, __m256 v, __m256 octet)
{
    __m256 above = _mm256_cmp_ps(v, _mm256_permutevar8x32_ps(octet, codes), _CMP_GT_OQ);

    /* True is -1. */
    return _mm256_sub_epi32(_mm256_add_epi32(codes, codes), _mm256_castps_si256(above));
}

static inline __m256i e_pick(__m256 octet, __m256i codes)
{
    return _mm256_castps_si256(_mm256_permutevar8x32_ps(octet, codes));
}

static inline __m256i e_below_zero(__m256 v)
{
    __m256 below = _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ);

    return _mm256_and_si256(_mm256_castps_si256(below), _mm256_set1_epi32(8));
}

static inline __m256i e_sign(__m256 v)
{
    return _mm256_slli_epi32(_mm256_srli_epi32(_mm256_castps_si256(v), 31), 3);
}

/*
 * Normal numbers are rounded as integers.  Below 2^-6 the sum with 2^14, whose last bit is 2^-9, is
 * rounded to the step of subnormals.
 */
static inline __m256i e_e4m3(__m256 v)
{
    __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(_mm256_castps_si256(v), 31), 7);
    __m256 magnitude = _mm256_min_ps(e_abs(v), _mm256_set1_ps(448.0f));
    __m256i bits = _mm256_castps_si256(magnitude);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(1));
    __m256 sum = _mm256_add_ps(magnitude, _mm256_set1_ps(0x1p14f));
    __m256i small = _mm256_sub_epi32(_mm256_castps_si256(sum), _mm256_set1_epi32(0x46800000));
    __m256 is_small = _mm256_cmp_ps(magnitude, _mm256_set1_ps(0x1p-6f), _CMP_LT_OQ);

    bits = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7ffff)), odd);
    bits = _mm256_sub_epi32(_mm256_srli_epi32(bits, 20), _mm256_set1_epi32(120 << 3));
    return e_or(_mm256_blendv_epi8(bits, small, _mm256_castps_si256(is_small)), sign);
}

static inline __m256i e_int8(__m256 v)
{
    __m256 limited = _mm256_max_ps(_mm256_min_ps(v, _mm256_set1_ps(127.0f)),
                                   _mm256_set1_ps(-127.0f));

    return _mm256_cvtps_epi32(limited);
}

static inline void e_store(uint8_t *out, __m256i codes)
{
    __m256i bytes = _mm256_and_si256(codes, _mm256_set1_epi32(255));
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(bytes),
                                     _mm256_extracti128_si256(bytes, 1));

    _mm_storel_epi64((__m128i *)(void *)out, _mm_packus_epi16(words, words));
}

static inline void e_halves(uint8_t out[16], const uint8_t src[32], bool high_first)
{
    const __m128i weights = _mm_set1_epi16(high_first ? 0x0110 : 0x1001); /* 16 and 1 */
    __m128i low = _mm_loadu_si128((const __m128i *)(const void *)src);
    __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(src + 16));

    low = _mm_maddubs_epi16(low, weights);
    high = _mm_maddubs_epi16(high, weights);
    _mm_storeu_si128((__m128i *)(void *)out, _mm_packus_epi16(low, high));
}

#include "cpu/encode_template.h"

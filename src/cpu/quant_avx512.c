/*
 * quant_avx512.c - the quant operations with AVX-512 (F, BW, DQ, VL)
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"
#include "cpu/lanes_avx512.h"

#define QUANT_TABLE quant_avx512
#define QUANT_NAME "avx512"
#define QUANT_FOLD fold_avx512

static inline __m512 q_signed(const uint8_t *codes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen_bytes(codes)));
}

static inline __m512 q_unsigned(const uint8_t *codes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen_bytes(codes)));
}

/*
 * Its fields, put where F16 has them, are the number divided by 2^8, the difference of the biases;
 * subnormals too.  What F16 makes of 7f is 480, which is larger than any E4M3.
 */
static inline __m512 q_e4m3(const uint8_t *codes)
{
    __m256i wide = _mm256_cvtepi8_epi16(sixteen_bytes(codes));
    __m256i half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16((short)0xbf80));
    __m512 x = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
    __mmask16 nan = _mm512_cmp_ps_mask(_mm512_abs_ps(x), _mm512_set1_ps(480.0f), _CMP_EQ_OQ);

    return _mm512_mask_mov_ps(x, nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
}

static inline void q_nibbles(uint8_t out[32], const uint8_t src[16], bool high_first)
{
    __m128i bytes = sixteen_bytes(src);
    __m128i low = _mm_and_si128(bytes, _mm_set1_epi8(15));
    __m128i high = _mm_and_si128(_mm_srli_epi16(bytes, 4), _mm_set1_epi8(15));
    __m128i first = high_first ? high : low;
    __m128i second = high_first ? low : high;

    _mm_storeu_si128((__m128i *)(void *)out, _mm_unpacklo_epi8(first, second));
    _mm_storeu_si128((__m128i *)(void *)(out + 16), _mm_unpackhi_epi8(first, second));
}

#include "cpu/quant_template.h"

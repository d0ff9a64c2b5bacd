/*
 * quant_avx512.c - the quant operations with AVX-512 (F, BW, DQ, VL)
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"

#include <immintrin.h>

#define QUANT_TABLE quant_avx512
#define QUANT_NAME "avx512"
#define QUANT_FOLD fold_avx512
#define QUANT_VECTOR __m512
#define QUANT_WIDTH 16
#define QUANT_NUMBERS __m512

static inline __m512 q_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline __m512 q_load(const float *src)
{
    return _mm512_loadu_ps(src);
}

static inline void q_store(float *dst, __m512 x)
{
    _mm512_storeu_ps(dst, x);
}

static inline __m512 q_mul(__m512 x, __m512 y)
{
    return _mm512_mul_ps(x, y);
}

static inline __m512 q_sub(__m512 x, __m512 y)
{
    return _mm512_sub_ps(x, y);
}

static inline __m512 q_peak(__m512 peak, __m512 x)
{
    __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));

    return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(peak), magnitude));
}

static inline bool q_reaches(__m512 peak, uint32_t limit)
{
    return _mm512_cmpge_epu32_mask(_mm512_castps_si512(peak), _mm512_set1_epi32((int)limit)) != 0;
}

/* In integers: vcvtneps2bf16 would flush subnormals. */
static inline __m512 q_round_bf16(__m512 x)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));

    bits = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    return _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32((int)0xffff0000)));
}

static inline __m512 q_round_f16(__m512 x)
{
    return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline __m512 q_numbers(const float table[16])
{
    return _mm512_loadu_ps(table);
}

static inline __m128i sixteen_bytes(const uint8_t *src)
{
    return _mm_loadu_si128((const __m128i *)(const void *)src);
}

static inline __m512 q_lookup(__m512 numbers, const uint8_t *codes)
{
    return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(sixteen_bytes(codes)), numbers);
}

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

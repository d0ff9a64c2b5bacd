/*
 * lanes_avx512.h - what quantised formats need of AVX-512 (F, BW, DQ, VL), both ways
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CPU_LANES_AVX512_H
#define CPU_LANES_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

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

static inline uint32_t q_greatest(__m512 x)
{
    return _mm512_reduce_max_epu32(_mm512_castps_si512(x));
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

#endif

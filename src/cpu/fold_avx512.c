/*
 * fold_avx512.c - the fold operations with AVX-512 (F, BW, DQ, VL)
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"

#include <immintrin.h>

#define FOLD_TABLE fold_avx512
#define FOLD_NAME "avx512"
#define FOLD_VECTOR __m512
#define FOLD_WIDTH 16
#define FOLD_DOUBLES __m512d
/* 24 sums, two vectors of A and one of B fit into 32 registers. */
#ifndef FOLD_ROWS
#define FOLD_ROWS 12
#endif
#define FOLD_ROWS_SMALL 4
#define FOLD_TILE_COLS 32

static inline __m512 v_zero(void)
{
    return _mm512_setzero_ps();
}

static inline __m512 v_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline __m512 v_load(const float *src)
{
    return _mm512_loadu_ps(src);
}

static inline void v_store(float *dst, __m512 x)
{
    _mm512_storeu_ps(dst, x);
}

static inline __m512 v_add(__m512 x, __m512 y)
{
    return _mm512_add_ps(x, y);
}

static inline __m512 v_mul(__m512 x, __m512 y)
{
    return _mm512_mul_ps(x, y);
}

static inline __m512 v_fma(__m512 x, __m512 y, __m512 z)
{
    return _mm512_fmadd_ps(x, y, z);
}

static inline __m512 v_peak(__m512 peak, __m512 x)
{
    __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));

    return _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(peak), magnitude));
}

static inline bool v_reaches(__m512 peak, unsigned limit)
{
    return _mm512_cmpge_epu32_mask(_mm512_castps_si512(peak), _mm512_set1_epi32((int)limit)) != 0;
}

static inline __m512 v_canonical(__m512 x)
{
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);

    return _mm512_mask_mov_ps(x, nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
}

static inline __m512d d_load(const double *src)
{
    return _mm512_loadu_pd(src);
}

static inline void d_store(double *dst, __m512d x)
{
    _mm512_storeu_pd(dst, x);
}

static inline __m512d d_canonical(__m512d x)
{
    __mmask8 nan = _mm512_cmp_pd_mask(x, x, _CMP_UNORD_Q);

    return _mm512_mask_mov_pd(x, nan, _mm512_castsi512_pd(_mm512_set1_epi64(0x7ff8000000000000)));
}

static inline __m512d d_lower(__m512 x)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(x));
}

static inline __m512d d_upper(__m512 x)
{
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
}

static inline __m512d d_add_square(__m512d sum, __m512d x)
{
    return _mm512_fmadd_pd(x, x, sum);
}

static inline void load_bf16(__m512 x[2], const unsigned char *src)
{
    for (size_t v = 0; v < 2; v++) {
        __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)(src + 32 * v));

        x[v] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
}

/* To nearest even in integers: vcvtneps2bf16 would flush subnormals. */
static inline __m512i round_bf16(__m512 x)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));

    return _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
}

static inline void store_bf16(unsigned char *dst, const __m512 x[2])
{
    /* The upper halves of 16 + 16 words: the odd ones of 64 half words. */
    const __m512i upper = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37,
                                           35, 33, 31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7,
                                           5, 3, 1);

    _mm512_storeu_si512(dst, _mm512_permutex2var_epi16(round_bf16(x[0]), upper, round_bf16(x[1])));
}

static inline void load_f16(__m512 x[2], const unsigned char *src)
{
    for (size_t v = 0; v < 2; v++)
        x[v] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(src + 32 * v)));
}

static inline void store_f16(unsigned char *dst, const __m512 x[2])
{
    for (size_t v = 0; v < 2; v++)
        _mm256_storeu_si256((__m256i *)(void *)(dst + 32 * v),
                            _mm512_cvtps_ph(x[v], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#include "cpu/fold_template.h"

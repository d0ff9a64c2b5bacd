/*
 * fold_avx2.c - the fold operations with AVX2, FMA and F16C
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"

#include <immintrin.h>

#define FOLD_TABLE fold_avx2
#define FOLD_NAME "avx2"
#define FOLD_VECTOR __m256
#define FOLD_WIDTH 8
#define FOLD_DOUBLES __m256d
/* 12 sums, two vectors of A and one of B fit into 16 registers. */
#define FOLD_ROWS 6
#define FOLD_ROWS_SMALL 2
#define FOLD_TILE_COLS 16

static inline __m256 v_zero(void)
{
    return _mm256_setzero_ps();
}

static inline __m256 v_set(float x)
{
    return _mm256_set1_ps(x);
}

static inline __m256 v_load(const float *src)
{
    return _mm256_loadu_ps(src);
}

static inline void v_store(float *dst, __m256 x)
{
    _mm256_storeu_ps(dst, x);
}

static inline __m256 v_add(__m256 x, __m256 y)
{
    return _mm256_add_ps(x, y);
}

static inline __m256 v_mul(__m256 x, __m256 y)
{
    return _mm256_mul_ps(x, y);
}

static inline __m256 v_fma(__m256 x, __m256 y, __m256 z)
{
    return _mm256_fmadd_ps(x, y, z);
}

static inline __m256 v_peak(__m256 peak, __m256 x)
{
    __m256i magnitude = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));

    return _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(peak), magnitude));
}

/* Magnitudes and limits are below 2^31, so that the signed comparison serves. */
static inline bool v_reaches(__m256 peak, unsigned limit)
{
    __m256i below = _mm256_set1_epi32((int)limit - 1);

    return _mm256_movemask_epi8(_mm256_cmpgt_epi32(_mm256_castps_si256(peak), below)) != 0;
}

static inline __m256 v_canonical(__m256 x)
{
    return _mm256_blendv_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)),
                            _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

static inline __m256d d_load(const double *src)
{
    return _mm256_loadu_pd(src);
}

static inline void d_store(double *dst, __m256d x)
{
    _mm256_storeu_pd(dst, x);
}

static inline __m256d d_canonical(__m256d x)
{
    return _mm256_blendv_pd(x, _mm256_castsi256_pd(_mm256_set1_epi64x(0x7ff8000000000000)),
                            _mm256_cmp_pd(x, x, _CMP_UNORD_Q));
}

static inline __m256d d_lower(__m256 x)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(x));
}

static inline __m256d d_upper(__m256 x)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
}

static inline __m256d d_add_square(__m256d sum, __m256d x)
{
    return _mm256_fmadd_pd(x, x, sum);
}

static inline void load_bf16(__m256 x[2], const unsigned char *src)
{
    for (size_t v = 0; v < 2; v++) {
        __m128i half = _mm_loadu_si128((const __m128i *)(const void *)(src + 16 * v));

        x[v] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    }
}

/* To nearest even, the result in the lower half of each word. */
static inline __m256i round_bf16(__m256 x)
{
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));

    bits = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    return _mm256_srli_epi32(bits, 16);
}

static inline void store_bf16(unsigned char *dst, const __m256 x[2])
{
    __m256i packed = _mm256_packus_epi32(round_bf16(x[0]), round_bf16(x[1]));

    /* Packing works in halves of 128 bits: put the quarters back in order. */
    _mm256_storeu_si256((__m256i *)(void *)dst, _mm256_permute4x64_epi64(packed, 0xd8));
}

static inline void load_f16(__m256 x[2], const unsigned char *src)
{
    for (size_t v = 0; v < 2; v++)
        x[v] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(src + 16 * v)));
}

static inline void store_f16(unsigned char *dst, const __m256 x[2])
{
    for (size_t v = 0; v < 2; v++)
        _mm_storeu_si128((__m128i *)(void *)(dst + 16 * v),
                         _mm256_cvtps_ph(x[v], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#include "cpu/fold_template.h"

/*
 * encode_avx512.c - the encode operations with AVX-512 (F, BW, DQ, VL)
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/isa.h"
#include "cpu/lanes_avx512.h"

#define ENCODE_TABLE encode_avx512
#define ENCODE_NAME "avx512"
#define ENCODE_CODES __m512i
#define ENCODE_OCTET __m512

static inline __m512 e_div(__m512 x, __m512 y)
{
    return _mm512_div_ps(x, y);
}

static inline __m512 e_abs(__m512 x)
{
    return _mm512_abs_ps(x);
}

static inline __m512 e_octet(const float table[8])
{
    return _mm512_broadcast_f32x8(_mm256_loadu_ps(table));
}

static inline __m512i e_zero(void)
{
    return _mm512_setzero_si512();
}

static inline __m512i e_or(__m512i x, __m512i y)
{
    return _mm512_or_si512(x, y);
}

static inline __m512i e_descend(__m512i codes, __m512 v, __m512 octet)
{
    __mmask16 above = _mm512_cmp_ps_mask(v, _mm512_permutexvar_ps(codes, octet), _CMP_GT_OQ);
    __m512i twice = _mm512_add_epi32(codes, codes);

    return _mm512_mask_add_epi32(twice, above, twice, _mm512_set1_epi32(1));
}

static inline __m512i e_pick(__m512 octet, __m512i codes)
{
    return _mm512_castps_si512(_mm512_permutexvar_ps(codes, octet));
}

static inline __m512i e_below_zero(__m512 v)
{
    return _mm512_maskz_set1_epi32(_mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), 8);
}

static inline __m512i e_sign(__m512 v)
{
    return _mm512_slli_epi32(_mm512_srli_epi32(_mm512_castps_si512(v), 31), 3);
}

/*
 * Normal numbers are rounded as integers.  Below 2^-6 the sum with 2^14, whose last bit is 2^-9, is
 * rounded to the step of subnormals.
 */
static inline __m512i e_e4m3(__m512 v)
{
    __m512i sign = _mm512_slli_epi32(_mm512_srli_epi32(_mm512_castps_si512(v), 31), 7);
    __m512 magnitude = _mm512_min_ps(e_abs(v), _mm512_set1_ps(448.0f));
    __m512i bits = _mm512_castps_si512(magnitude);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 20), _mm512_set1_epi32(1));
    __m512 sum = _mm512_add_ps(magnitude, _mm512_set1_ps(0x1p14f));
    __m512i small = _mm512_sub_epi32(_mm512_castps_si512(sum), _mm512_set1_epi32(0x46800000));
    __mmask16 is_small = _mm512_cmp_ps_mask(magnitude, _mm512_set1_ps(0x1p-6f), _CMP_LT_OQ);

    bits = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7ffff)), odd);
    bits = _mm512_sub_epi32(_mm512_srli_epi32(bits, 20), _mm512_set1_epi32(120 << 3));
    return e_or(_mm512_mask_mov_epi32(bits, is_small, small), sign);
}

static inline __m512i e_int8(__m512 v)
{
    __m512 limited = _mm512_max_ps(_mm512_min_ps(v, _mm512_set1_ps(127.0f)),
                                   _mm512_set1_ps(-127.0f));

    return _mm512_cvtps_epi32(limited);
}

static inline void e_store(uint8_t *out, __m512i codes)
{
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(codes));
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

/*
 * 31 bins of the numbers from -1 to 1 as a rounding to integers makes them.  They are narrower than
 * any two bounds are apart, so that one comparison with the only bound of a bin is enough.
 */
struct nf4_bins {
    __m512 bounds[2];
    __m512i ranks[2]; /* of the least number of a bin */
};
#define NF4_BINS_HALF 15.0f

static inline struct nf4_bins nf4_bins_of(const float bounds[15])
{
    struct nf4_bins bins;
    float bound[32];
    uint32_t rank[32];
    uint32_t least = 0;

    for (int i = 0; i < 32; i++) {
        while (least < 15 && (bounds[least] + 1.0f) * NF4_BINS_HALF < (float)i - 0.5f)
            least++;
        rank[i] = least;
        bound[i] = least < 15 ? bounds[least] : 2.0f;
    }
    for (int i = 0; i < 2; i++) {
        bins.bounds[i] = _mm512_loadu_ps(bound + (size_t)i * 16);
        bins.ranks[i] = _mm512_loadu_si512(rank + (size_t)i * 16);
    }
    return bins;
}

static inline __m512i nf4_rank(const struct nf4_bins *bins, __m512 v)
{
    /* The last bit of 2^23 is 1: the sum's low bits are the bin. */
    __m512 sum = _mm512_fmadd_ps(v, _mm512_set1_ps(NF4_BINS_HALF),
                                 _mm512_set1_ps(0x1p23f + NF4_BINS_HALF));
    __m512i bin = _mm512_castps_si512(sum);
    __m512 bound = _mm512_permutex2var_ps(bins->bounds[0], bin, bins->bounds[1]);
    __m512i rank = _mm512_permutex2var_epi32(bins->ranks[0], bin, bins->ranks[1]);

    return _mm512_mask_add_epi32(rank, _mm512_cmp_ps_mask(v, bound, _CMP_GT_OQ), rank,
                                 _mm512_set1_epi32(1));
}

#define ENCODE_NF4 struct nf4_bins
#define e_nf4 nf4_bins_of
#define e_nf4_rank nf4_rank

#include "cpu/encode_template.h"

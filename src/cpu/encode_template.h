/*
 * encode_template.h - the encode operations for one instruction set
 *
 * A file of one instruction set includes its lanes (cpu/lanes_*.h), defines the parameters below
 * and includes this file once.  Each lane does exactly what encode_scalar.c does for one element.
 *
 *     ENCODE_TABLE     name of the struct encode_ops that is defined here
 *     ENCODE_NAME      its name as text
 *     ENCODE_CODES     type of a vector of QUANT_WIDTH codes
 *     ENCODE_OCTET     type that holds a table of 8 floats
 *
 *     QUANT_VECTOR e_div(x, y), e_abs(x)
 *     ENCODE_OCTET e_octet(const float table[8])
 *     ENCODE_CODES e_zero(void), e_or(x, y)
 *     ENCODE_CODES e_descend(codes, v, octet): 2 code, and 1 more where v > octet[code]; no code is
 *         over 7
 *     ENCODE_CODES e_pick(octet, codes): the pattern of octet[code]
 *     ENCODE_CODES e_below_zero(v): 8 where v < 0
 *     ENCODE_CODES e_sign(v): 8 where the sign of v is set
 *     ENCODE_CODES e_e4m3(v), e_int8(v): rounded and limited; of a NaN anything
 *     void e_store(out, codes): the low byte of each
 *     ENCODE_NF4, e_nf4(const float bounds[15]), ENCODE_CODES e_nf4_rank(const ENCODE_NF4 *, v):
 * how many of the bounds of NF4 are less than v, which is from -1 to 1 or a last bit off; may be
 * left out uint32_t q_greatest(x): the largest lane as an integer pattern void e_halves(out, src,
 * high_first): 32 bytes as the halves of 16
 *
 * How it is fast: a rank among 15 bounds is four steps down a tree whose levels are vectors.  What
 * is not finite is an error nearly always: the block, or the range, is then left to the definition.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/convert.h"
#include "compute/encode_bounds.h"
#include "compute/quant_layout.h"

#include <string.h>

#define ENCODE_INLINE static inline __attribute__((always_inline))

#define ENCODE_RUN 512u /* elements that are worked on together, an even number */
#define ENCODE_USUAL_BLOCK 64u
#define ENCODE_SLACK 32u /* that the last vector of a run may reach over */

static size_t encode_lesser(size_t x, size_t y)
{
    return x < y ? x : y;
}

/* Elements from src on, of which `left` are there; zeros behind them. */
ENCODE_INLINE QUANT_VECTOR load_some(const float *src, size_t left)
{
    float last[QUANT_WIDTH] = { 0 };

    if (__builtin_expect(left >= QUANT_WIDTH, 1))
        return q_load(src);
    memcpy(last, src, left * sizeof(float));
    return q_load(last);
}

ENCODE_INLINE void store_some(float *dst, QUANT_VECTOR x, size_t left)
{
    float last[QUANT_WIDTH];

    if (__builtin_expect(left >= QUANT_WIDTH, 1)) {
        q_store(dst, x);
        return;
    }
    q_store(last, x);
    memcpy(dst, last, left * sizeof(float));
}

/* The largest magnitude as an integer pattern: of any NaN, if there is one. */
ENCODE_INLINE uint32_t peak_of(const float *src, size_t count)
{
    QUANT_VECTOR peak = q_set(0.0f);

    for (size_t k = 0; k < count; k += QUANT_WIDTH)
        peak = q_peak(peak, load_some(src + k, count - k));
    return q_greatest(peak);
}

static void absmax(float *out, const float *src, size_t count, size_t block)
{
    for (size_t first = 0; first < count; first += block) {
        size_t here = encode_lesser(block, count - first);
        uint32_t peak = peak_of(src + first, here);

        if (peak > F32_INFINITY)
            encode_scalar.absmax(out, src + first, here, block);
        else
            *out = f32_from_bits(peak);
        out++;
    }
}

/* `count` codes, a byte each, as halves; what stands behind the last, if count is odd, too. */
static void pack_halves(uint8_t *out, const uint8_t *codes, size_t count, bool high_first)
{
    const unsigned even = high_first ? 4 : 0;

    for (; count >= 32; count -= 32, codes += 32, out += 16)
        e_halves(out, codes, high_first);
    for (size_t i = 0; i < count; i += 2)
        *out++ = (uint8_t)(codes[i] << even | codes[i + 1] << (4 - even));
}

/* --------------------------------------------------------------------- ranks among bounds, codes
 */

/* Bounds as the levels of a tree: those of level k are what 2^k ranks are told apart by. */
struct tree {
    ENCODE_OCTET levels[4];
};

static struct tree tree_of(const float *bounds, unsigned depth)
{
    struct tree tree;

    for (unsigned k = 0; k < 4; k++) {
        float level[8] = { 0 };

        for (unsigned i = 0; k < depth && i < 1u << k; i++)
            level[i] = bounds[((2 * i + 1) << (depth - 1 - k)) - 1];
        tree.levels[k] = e_octet(level);
    }
    return tree;
}

ENCODE_INLINE ENCODE_CODES rank_in(const struct tree *tree, unsigned depth, QUANT_VECTOR v)
{
    ENCODE_CODES rank = e_zero();

    for (unsigned k = 0; k < depth; k++)
        rank = e_descend(rank, v, tree->levels[k]);
    return rank;
}

/* An instruction set that has a better way for 15 bounds defines these itself. */
#ifndef ENCODE_NF4
#define ENCODE_NF4 struct tree
#define e_nf4(bounds) tree_of(bounds, 4)
#define e_nf4_rank(tree, v) rank_in(tree, 4, v)
#endif

/* What codes are made with; for QUANT_E4M3 and QUANT_SIGNED nothing. */
struct coder {
    struct tree tree; /* of three levels */
    ENCODE_NF4 nf4;
    ENCODE_OCTET fp4_codes;
};

static struct coder coder_of(enum quant_codes codes)
{
    struct coder coder;
    float patterns[8];

    for (unsigned i = 0; i < 8; i++)
        patterns[i] = f32_from_bits(encode_fp4_codes[i]);
    coder.fp4_codes = e_octet(patterns);
    coder.nf4 = e_nf4(encode_nf4_bounds);
    coder.tree = tree_of(codes == QUANT_FP4_BNB ? encode_fp4_bounds : encode_e2m1_bounds, 3);
    return coder;
}

/* Always inlined with constant codes.  `number` divides or, where codes are to be found by a
 * factor, multiplies. */
ENCODE_INLINE void code_run(uint8_t *out, const float *src, size_t count, float number,
                            enum quant_codes codes, const struct coder *coder)
{
    const QUANT_VECTOR by = q_set(number);

    for (size_t k = 0; k < count; k += QUANT_WIDTH) {
        QUANT_VECTOR x = load_some(src + k, count - k);
        QUANT_VECTOR v;
        ENCODE_CODES code;

        if (codes == QUANT_E4M3) {
            code = e_e4m3(e_div(x, by));
        } else if (codes == QUANT_SIGNED) {
            code = e_int8(q_mul(q_round_f16(x), by));
        } else if (codes == QUANT_E2M1) {
            v = e_div(x, by);
            code = e_or(rank_in(&coder->tree, 3, e_abs(v)), e_sign(v));
        } else if (codes == QUANT_NF4) {
            code = e_nf4_rank(&coder->nf4, q_mul(x, by));
        } else {
            v = q_mul(x, by);
            code = e_or(e_pick(coder->fp4_codes, rank_in(&coder->tree, 3, e_abs(v))),
                        e_below_zero(v));
        }
        e_store(out + k, code);
    }
}

/* ------------------------------------------------------------------------------- bitsandbytes */

static uint8_t code_of_zero(enum quant_codes codes)
{
    return codes == QUANT_NF4 ? ENCODE_NF4_ZERO : 0;
}

/* A run of a block, a byte each, and behind them the code of zero. */
ENCODE_INLINE void bnb4_run(uint8_t *bytes, enum quant_codes codes, const float *src, size_t count,
                            float inverse, const struct coder *coder)
{
    if (f32_bits(inverse) == F32_INFINITY)
        memset(bytes, code_of_zero(codes), count);
    else if (codes == QUANT_NF4)
        code_run(bytes, src, count, inverse, QUANT_NF4, coder);
    else
        code_run(bytes, src, count, inverse, QUANT_FP4_BNB, coder);
    bytes[count] = code_of_zero(codes);
}

/* The block that nearly all tensors have, with a constant count; false: it is not all finite. */
ENCODE_INLINE bool bnb4_usual(uint8_t *out, float *absmax, enum quant_codes codes, const float *src,
                              const struct coder *coder)
{
    uint8_t bytes[ENCODE_USUAL_BLOCK + ENCODE_SLACK];
    uint32_t peak = peak_of(src, ENCODE_USUAL_BLOCK);

    *absmax = f32_from_bits(peak);
    bnb4_run(bytes, codes, src, ENCODE_USUAL_BLOCK, 1.0f / *absmax, coder);
    for (size_t k = 0; k < ENCODE_USUAL_BLOCK; k += 32)
        e_halves(out + k / 2, bytes + k, true);
    return peak < F32_INFINITY;
}

/* The whole blocks of ENCODE_USUAL_BLOCK elements up to one that is not finite: their elements. */
static size_t bnb4_usuals(uint8_t *out, float *absmaxes, enum quant_codes codes, const float *src,
                          size_t count, const struct coder *coder)
{
    size_t done = 0;

    for (; count - done >= ENCODE_USUAL_BLOCK; done += ENCODE_USUAL_BLOCK) {
        float *absmax = absmaxes + done / ENCODE_USUAL_BLOCK;

        if (codes == QUANT_NF4
                ? !bnb4_usual(out + done / 2, absmax, QUANT_NF4, src + done, coder)
                : !bnb4_usual(out + done / 2, absmax, QUANT_FP4_BNB, src + done, coder))
            break;
    }
    return done;
}

static size_t bnb4(uint8_t *out, float *absmaxes, enum quant_codes codes, const float *src,
                   size_t count, size_t block)
{
    const struct coder coder = coder_of(codes);
    uint8_t bytes[ENCODE_RUN + ENCODE_SLACK];
    size_t bad = FOLD_FINITE;
    size_t usual = 0;

    if (block == ENCODE_USUAL_BLOCK)
        usual = bnb4_usuals(out, absmaxes, codes, src, count, &coder);

    for (size_t first = usual; first < count; first += block) {
        size_t here = encode_lesser(block, count - first);
        uint32_t peak = peak_of(src + first, here);
        float largest = f32_from_bits(peak);

        if (peak >= F32_INFINITY) {
            size_t bad_here = encode_scalar.bnb4(out + first / 2, &absmaxes[first / block], codes,
                                                 src + first, here, block);

            bad = bad == FOLD_FINITE ? first + bad_here : bad;
            continue;
        }
        absmaxes[first / block] = largest;
        for (size_t k = 0; k < here; k += ENCODE_RUN) {
            size_t run = encode_lesser(ENCODE_RUN, here - k);

            bnb4_run(bytes, codes, src + first + k, run, 1.0f / largest, &coder);
            pack_halves(out + (first + k) / 2, bytes, run, true);
        }
    }
    return bad;
}

ENCODE_INLINE void decode_run(float *dst, const uint8_t *bytes, size_t count, float largest,
                              QUANT_NUMBERS numbers, enum dtype result_dtype)
{
    for (size_t k = 0; k < count; k += QUANT_WIDTH) {
        QUANT_VECTOR w = q_mul(q_lookup(numbers, bytes + k), q_set(largest));

        if (result_dtype == DTYPE_BF16)
            w = q_round_bf16(w);
        else if (result_dtype == DTYPE_F16)
            w = q_round_f16(w);
        store_some(dst + k, w, count - k);
    }
}

static uint32_t overflow_of(enum dtype dtype)
{
    if (dtype == DTYPE_BF16)
        return BF16_OVERFLOW;
    return dtype == DTYPE_F16 ? F16_OVERFLOW : F32_OVERFLOW;
}

static size_t bnb4_round_trip(float *dst, enum quant_codes codes, enum dtype result_dtype,
                              const float *src, size_t count, size_t block)
{
    const struct coder coder = coder_of(codes);
    const QUANT_NUMBERS numbers = q_numbers(quant_tables[codes]);
    uint8_t bytes[ENCODE_RUN + ENCODE_SLACK] = { 0 };
    size_t bad = FOLD_FINITE;

    for (size_t first = 0; first < count; first += block) {
        size_t here = encode_lesser(block, count - first);
        uint32_t peak = peak_of(src + first, here);
        float largest = f32_from_bits(peak);

        if (peak >= overflow_of(result_dtype)) {
            size_t bad_here = encode_scalar.bnb4_round_trip(dst + first, codes, result_dtype,
                                                            src + first, here, block);

            if (bad == FOLD_FINITE && bad_here != FOLD_FINITE)
                bad = first + bad_here;
            continue;
        }
        for (size_t k = 0; k < here; k += ENCODE_RUN) {
            size_t run = encode_lesser(ENCODE_RUN, here - k);
            float *to = dst + first + k;

            bnb4_run(bytes, codes, src + first + k, run, 1.0f / largest, &coder);
            if (result_dtype == DTYPE_BF16)
                decode_run(to, bytes, run, largest, numbers, DTYPE_BF16);
            else if (result_dtype == DTYPE_F16)
                decode_run(to, bytes, run, largest, numbers, DTYPE_F16);
            else
                decode_run(to, bytes, run, largest, numbers, DTYPE_F32);
        }
    }
    return bad;
}

/* -------------------------------------------------------------------------------- given scales */

/* Elements that have the scale `scale`. */
static void scaled_part(uint8_t *bytes, enum quant_codes codes, const float *src, size_t count,
                        float scale, const struct coder *coder)
{
    const float factor = 127.0f / scale;

    if (codes == QUANT_SIGNED ? f32_bits(factor) == F32_INFINITY : scale == 0.0f)
        memset(bytes, 0, count);
    else if (codes == QUANT_E4M3)
        code_run(bytes, src, count, scale, QUANT_E4M3, coder);
    else if (codes == QUANT_E2M1)
        code_run(bytes, src, count, scale, QUANT_E2M1, coder);
    else
        code_run(bytes, src, count, factor, QUANT_SIGNED, coder);
}

static size_t scaled(uint8_t *out, enum quant_codes codes, const float *src, size_t count,
                     const float *scales, size_t block)
{
    const uint32_t limit = codes == QUANT_SIGNED ? F16_OVERFLOW : F32_INFINITY;
    const struct coder coder = coder_of(codes);
    uint8_t bytes[ENCODE_RUN + ENCODE_SLACK];
    bool bad = false;

    for (size_t first = 0; first < count; first += ENCODE_RUN) {
        size_t run = encode_lesser(ENCODE_RUN, count - first);
        size_t part;

        bad |= peak_of(src + first, run) >= limit;
        for (size_t k = 0; k < run; k += part) {
            part = encode_lesser(block - (first + k) % block, run - k);
            scaled_part(bytes + k, codes, src + first + k, part, scales[(first + k) / block],
                        &coder);
        }
        bytes[run] = 0;
        if (codes == QUANT_E2M1)
            pack_halves(out + first / 2, bytes, run, false);
        else
            memcpy(out + first, bytes, run);
    }
    return bad ? encode_scalar.scaled(out, codes, src, count, scales, block) : FOLD_FINITE;
}

const struct encode_ops ENCODE_TABLE = {
    .name = ENCODE_NAME,
    .absmax = absmax,
    .bnb4 = bnb4,
    .bnb4_round_trip = bnb4_round_trip,
    .scaled = scaled,
};

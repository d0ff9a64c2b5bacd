/*
 * encode.h - fp32 to the codes of quantised formats, and the scales that go with them
 *
 * The way back from quant.h.  What is encoded are fp32 numbers that a merge has already rounded to
 * the dtype that the format stands for, in blocks of consecutive elements that share a scale;
 * `src` begins with the first element of a block, the last block may be cut.  Every operation on a
 * number is one of IEEE 754, rounded as written; docs/NUMERICS.md says it in words,
 * encode_scalar.c is the definition, and every other table gives its bits (tests/kernel).
 *
 * No function allocates.  Threads: pure functions of their arguments, in the default floating-point
 * environment (fold_environment_enter()).
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_ENCODE_H
#define COMPUTE_ENCODE_H

#include "base/dtype.h"
#include "compute/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENCODE_NESTED_BLOCK 256u /* absmax that share a number of nested_absmax */

struct encode_ops {
    const char *name; /* as that of the fold operations of the same instruction set */

    /* out[b] = the largest |x| of block b, a NaN left out. */
    void (*absmax)(float *out, const float *src, size_t count, size_t block);

    /*
     * bitsandbytes, `codes` QUANT_NF4 or QUANT_FP4_BNB; block is even.  Writes ceil(count / 2)
     * bytes, the first code in the high half, the last half of an odd count the code of zero; and
     * ceil(count / block) floats.  Blocks whose 1 / absmax is infinite, those of zeros among them,
     * get codes of zero.  Returns FOLD_FINITE, or the index of the first element that is NaN or
     * infinite; all is written.
     */
    size_t (*bnb4)(uint8_t *out, float *absmax, enum quant_codes codes, const float *src,
                   size_t count, size_t block);

    /*
     * dst[i] = what decoding gives of what bnb4() makes of src[i], absmax not nested, rounded to
     * result_dtype (BF16, F16 or F32) and widened; dst == src is allowed.  Returns FOLD_FINITE, or
     * the first index where src or dst is not finite; all is written, a NaN as the canonical one.
     */
    size_t (*bnb4_round_trip)(float *dst, enum quant_codes codes, enum dtype result_dtype,
                              const float *src, size_t count, size_t block);

    /*
     * With given scales, scales[b] for block b, finite and not negative; where it is 0 all codes
     * are 0.  `codes` is one of
     *     QUANT_E4M3    x / s, limited to +-448: a byte each
     *     QUANT_E2M1    x / s, limited to +-6: two in a byte, the first in the low half, the last
     *                   half of an odd count 0
     *     QUANT_SIGNED  LLM.int8: x rounded to F16, times fl(127 / s), limited to +-127; a byte
     * each Returns FOLD_FINITE, or the index of the first element that is NaN or infinite
     * (QUANT_SIGNED: as F16); all is written, a NaN as 7f, 0 and 0.
     */
    size_t (*scaled)(uint8_t *out, enum quant_codes codes, const float *src, size_t count,
                     const float *scales, size_t block);
};

extern const struct encode_ops encode_scalar;

/*
 * Nested absmax of bitsandbytes.  `absmax` is that of a whole tensor, all finite.
 */

/* Their mean: the sum in double, in order, rounded to fp32, divided by fl(count).  Infinite if the
 * sum is beyond fp32.  count > 0. */
float encode_nested_offset(const float *absmax, size_t count);

/*
 * codes[count] (NULL: not wanted), and nested[ceil(count / ENCODE_NESTED_BLOCK)]; `map` ascends.
 * May be called for parts of a tensor that begin with a whole nested block.
 */
void encode_nested(uint8_t *codes, float *nested, const float *absmax, size_t count, float offset,
                   const float map[256]);

/* The map for a tensor that has none yet: that of bitsandbytes with torch 2.13, on any machine. */
void encode_dynamic_map(float map[256]);

/*
 * Scales from `amax`, the largest magnitude of a block, finite; `base` is what the tensor had.
 * Keeping it changes the fewest codes.
 */

/* E8M0 code of MXFP4 by the rule of OCP, floor(log2 amax) - 2; 0 for amax 0. */
uint8_t encode_mxfp4_scale(float amax);
/* The larger of `base` and that. */
uint8_t encode_mxfp4_keep(uint8_t base, float amax);

/*
 * E4M3 code of NVFP4 beside a scale of the whole tensor, with `scale` QUANT_SCALE_TIMES_WHOLE or
 * QUANT_SCALE_OVER_WHOLE: `base`, unless amax is more than 6 of its steps; then the nearest to
 * amax / 6.  encode_nvfp4_step() is the step that a code stands for, as decoding has it.
 */
uint8_t encode_nvfp4_keep(uint8_t base, float amax, enum quant_scale scale, float whole);
float encode_nvfp4_step(uint8_t code, enum quant_scale scale, float whole);

/*
 * Scale of FP8: amax / 448 as `dtype` has it (F32, BF16, F16, or F8_E8M0, which rounds up), never
 * 0 nor infinite, and 1 for amax 0.
 */
float encode_fp8_scale(float amax, enum dtype dtype);
/* `base`, unless amax is more than 448 of it: then that. */
float encode_fp8_keep(float base, float amax, enum dtype dtype);

/* Scale of integers of 8 bits: the same with amax / 127. */
float encode_int8_scale(float amax, enum dtype dtype);

/*
 * Writing a weight back in its own scheme: one scale of the matrix as it is stored.  `base` is what
 * the tensor had and stays unless `amax`, the largest magnitude of the block, is more than 448 of
 * it (FP8), 6 (NVFP4), 7 (MXFP4), 127.5 (integers) or 1 (LLM.int8): every element is then within
 * half a step of its code.  `whole` is that of struct quant_whole.  The matrix has
 * codes QUANT_E4M3, QUANT_E2M1 with E8M0 or E4M3 scales, or QUANT_SIGNED without zero points.  For
 * FP8 an F32 scale that is a power of two is replaced by one.  False: amax is beyond what any scale
 * of NVFP4 reaches.
 */
bool encode_keep(uint8_t *out, const uint8_t *base, float amax, const struct quant_matrix *matrix,
                 float whole);
/* The step that a stored scale of such a matrix stands for, as encode_ops.scaled() takes it. */
float encode_step(const uint8_t *stored, const struct quant_matrix *matrix, float whole);

/*
 * Integers of 8 bits: x / s to the nearest even, limited to -128..127; 0 where s is 0, and for NaN.
 * As encode_ops.scaled() but for any scale that is not negative.
 */
void encode_int8(uint8_t *out, const float *src, size_t count, const float *scales, size_t block);

#endif

/*
 * quant.h - quantised weights, decoded to fp32 at any range of elements
 *
 * A quantised tensor is codes and companions (scales, zero points, a table).  Whatever made it, one
 * element is decoded in four steps, each rounded as written and none fused:
 *
 *     v = the number of its code                    exact: a table, or q - zero
 *     s = the scale of its block                    enum quant_scale says how, in fp32
 *     w = fl(v * s)                                 for ROW_127 fl(fl(v * s) * fl(1 / 127))
 *     result = w rounded to result_dtype, then widened, as the reference of the format does
 *
 * Zero points z and biases b that are numbers (HQQ, MLX) are worked with in the result's dtype, to
 * which r() rounds:
 *
 *     QUANT_ZEROS_NUMBERS    result = r(fl(r(fl(q - z)) * s))
 *     QUANT_ZEROS_BIASES     result = r(fl(r(fl(q * s)) + b))
 *
 * So schemes differ in data and not in code paths: struct quant_matrix is filled from a header,
 * and a decoder reads nothing else.  docs/NUMERICS.md has the tables of codes; quant_scalar.c is
 * the definition, and every other table gives its bits (tests/kernel).
 *
 * The logical tensor is `matrices` matrices [rows][cols], row-major, one behind the other: what the
 * merge folds into and, decoded, writes.  Elements are numbered through it.  The codes may lie
 * transposed to it (GPTQ, AWQ, experts of gpt-oss).
 *
 * No function allocates.  Threads: pure functions of their arguments, in the default floating-point
 * environment (fold_environment_enter()).
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_QUANT_H
#define COMPUTE_QUANT_H

#include "base/dtype.h"
#include "base/error.h"
#include "compute/fold.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum quant_codes {
    QUANT_NF4,      /* 16 fp32 numbers, bitsandbytes */
    QUANT_FP4_BNB,  /* 16 fp32 numbers, bitsandbytes; code 8 is -0 */
    QUANT_E2M1,     /* 0, 0.5, 1, 1.5, 2, 3, 4, 6 and a sign */
    QUANT_E4M3,     /* F8_E4M3: no infinity, NaN 7f and ff */
    QUANT_SIGNED,   /* two's complement of 8 bits, less the zero point if there is one */
    QUANT_UNSIGNED, /* `bits`, less the zero point */
    QUANT_FLOATS    /* numbers of scale_dtype, which is result_dtype, and no scales: s = 1.  What is
                       not quantised and lies transposed */
};

/* Where the codes of one stored row lie.  A row begins at a whole byte, or word where words are. */
enum quant_packing {
    QUANT_BYTES,      /* whole bytes: one, or those of a number */
    QUANT_HIGH_FLAT,  /* two in a byte, the first in the high half; rows are not aligned (bnb);
                         transposed, whole blocks make a row */
    QUANT_LOW_FIRST,  /* two in a byte, the first in the low half */
    QUANT_WORDS,      /* 32-bit little-endian words, from bit 0 up along the row, across words */
    QUANT_WORDS_DOWN, /* the same, but along a column: word [k][j] holds rows of column j (GPTQ) */
    QUANT_WORDS_AWQ,  /* eight 4-bit codes of a word are columns 0 2 4 6 1 3 5 7, from bit 0 up */
    QUANT_BANDS /* the rows are quant_bands() bands of as many rows, the last one of 3 bits may
                   be cut: byte [k][j], or word of 3 bits, holds row k of each band at column
                   j, the first band in the highest bits that are used (HQQ) */
};

/*
 * s, from the stored scale t of the block, widened exactly.  E8M0 is 2^(t - 127), its 255 and the
 * NaN of E4M3 are NaN, and so are all elements of their block.
 */
enum quant_scale {
    QUANT_SCALE_PLAIN,       /* s = t */
    QUANT_SCALE_NESTED,      /* s = fl(fl(map[t] * nested[block / 256]) + offset) */
    QUANT_SCALE_TIMES_WHOLE, /* s = fl(t * whole) */
    QUANT_SCALE_OVER_WHOLE,  /* s = fl(t / whole) */
    QUANT_SCALE_ROW_127      /* s = t, and w has a second factor: see above */
};

/*
 * Zero points, one for each block; integers but for the last two.  QUANT_UNSIGNED always has them,
 * QUANT_SIGNED may have QUANT_ZEROS_BYTES, tables have none.
 */
enum quant_zeros {
    QUANT_ZEROS_NONE,
    QUANT_ZEROS_MIDDLE,  /* 2^(bits - 1): nothing is stored (compressed-tensors, symmetric) */
    QUANT_ZEROS_BYTES,   /* I8; for QUANT_UNSIGNED counted from the middle, 2^(bits - 1) */
    QUANT_ZEROS_WORDS,   /* packed as QUANT_WORDS along the scales' row (GPTQ v2) */
    QUANT_ZEROS_WORDS_1, /* the same, less one: each word + 0x11111111 for 4 bits, 0x01010101 for
                            8, 0x55555555 for 2; fields apart, modulo 8, for 3 (GPTQ v1) */
    QUANT_ZEROS_AWQ,     /* packed as QUANT_WORDS_AWQ */
    QUANT_ZEROS_DOWN,    /* packed as QUANT_WORDS_DOWN (compressed-tensors, asymmetric) */
    QUANT_ZEROS_NUMBERS, /* of scale_dtype, which is result_dtype: z above (HQQ) */
    QUANT_ZEROS_BIASES   /* the same: b above, and no zero point (MLX) */
};

/* What is read of a tensor's parts, by part; the whole-tensor parts stand in struct quant_whole. */
enum quant_part { QUANT_PART_CODES, QUANT_PART_SCALES, QUANT_PART_ZEROS, QUANT_PART_COUNT };

/* All numbers are checked by quant_check() against the headers' shapes before anything is read. */
struct quant_matrix {
    uint64_t matrices; /* 1 but for fused experts */
    uint64_t rows;     /* of one logical matrix */
    uint64_t cols;
    bool transposed; /* stored as [cols][rows]; below, a stored row is what lies together */

    enum quant_codes codes;
    enum quant_packing packing;
    unsigned bits; /* 2, 3, 4 or 8, with BIASES 5 and 6, in BANDS 1 to 4; 4 for tables, 8 for E4M3,
                      those of the dtype for FLOATS */

    enum quant_scale scale;
    enum dtype scale_dtype; /* F32, BF16, F16, F8_E4M3, F8_E8M0; U8 where NESTED */
    /*
     * Block of an element at stored row i, column j of stored width n, unless group_of is given:
     *     block_rows 0: (i * n + j) / block_cols, through the whole tensor (HIGH_FLAT that is not
     *           transposed, no other)
     *     else: (i / block_rows) * ceil(n / block_cols) + j / block_cols, in each matrix anew;
     *           the last block of a row or column may be cut
     */
    uint64_t block_rows;
    uint64_t block_cols;
    enum quant_zeros zeros;

    enum dtype result_dtype; /* BF16, F16 or F32 */
};

/*
 * Companions that a decoder has whole: they stay in memory while the tensor is worked on.
 *     map 1 KiB; nested 4 bytes for 16,384 elements of block 64; group_of 4 bytes for each input.
 */
struct quant_whole {
    float map[256];           /* NESTED: as stored, never computed */
    const float *nested;      /* NESTED: ceil(blocks / 256) */
    float offset;             /* NESTED: the double of the JSON, rounded to fp32 */
    float whole;              /* TIMES_WHOLE, OVER_WHOLE: of the matrix that is decoded */
    const uint32_t *group_of; /* or NULL; only where transposed: the block's row of stored row i,
                                 of every matrix (g_idx) */
};

/*
 * ERR_FORMAT with a sentence: the fields are no scheme that is decoded, a size overflows, or the
 * bytes of a part (as its header has them) are not those that the fields make.
 */
int quant_check(const struct quant_matrix *matrix, const uint64_t part_bytes[QUANT_PART_COUNT],
                struct error *err);

/*
 * ERR_FORMAT with a sentence: `whole` is zero or not finite where it is used, or group_of names a
 * row of blocks that is not there.  The matrix has passed quant_check().
 */
int quant_check_whole(const struct quant_matrix *matrix, const struct quant_whole *whole,
                      struct error *err);

/* `count` pieces of `bytes`, `stride` apart, from `offset` in the data of a part; count 0: none. */
struct quant_reads {
    uint64_t offset;
    uint64_t bytes;
    uint64_t stride; /* 0 where count is 1 */
    uint64_t count;
};

/* Do codes that are behind one another in the tensor lie apart in the file? */
static inline bool quant_is_strided(const struct quant_matrix *matrix)
{
    return matrix->transposed || matrix->packing == QUANT_BANDS;
}

/* Fields of QUANT_BANDS in a byte, or ten of 3 bits in a word, whose two highest bits are 0. */
#define QUANT_BANDS_OF_3 10u
static inline unsigned quant_bands(unsigned bits)
{
    return bits == 3 ? QUANT_BANDS_OF_3 : 8 / bits;
}

/*
 * Elements that should be read together: a range that passes a multiple of it needs more than its
 * own codes, of QUANT_BANDS all of them.
 */
static inline uint64_t quant_span(const struct quant_matrix *matrix)
{
    uint64_t bands = matrix->packing == QUANT_BANDS ? quant_bands(matrix->bits) : 1;

    return (matrix->rows + bands - 1) / bands * matrix->cols;
}

/*
 * What has to be read to decode elements [first, first + count), which lie in one matrix (in any
 * where block_rows is 0): one piece of each part where nothing is transposed.  Transposed, a piece
 * is a part of each stored row, and `count` should be whole logical rows, many of them: 32 rows of
 * GPTQ are pieces of 128 bytes.  Every piece lies in its part.
 */
void quant_reads_of(struct quant_reads out[QUANT_PART_COUNT], const struct quant_matrix *matrix,
                    uint64_t first, uint64_t count);

/* Those pieces, without gaps, at any address. */
struct quant_source {
    const void *parts[QUANT_PART_COUNT];
    const struct quant_whole *whole;
    uint64_t first; /* the range that they were read for */
    uint64_t count;
};

struct quant_ops {
    const char *name; /* as that of the fold operations of the same instruction set */

    /*
     * dst[i] = element first + i, for i < count; the range lies in that of the source.  The same
     * element has the same bits however it is cut into ranges.  Returns FOLD_FINITE, or the index
     * of the first element that is NaN or infinite, be it by its code, its scale or the product;
     * all are written, a NaN as the canonical one.
     */
    size_t (*decode)(float *dst, const struct quant_matrix *matrix,
                     const struct quant_source *source, uint64_t first, size_t count);
};

extern const struct quant_ops quant_scalar;

#endif

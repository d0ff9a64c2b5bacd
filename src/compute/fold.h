/*
 * fold.h - the arithmetic of a merge, as a table that instruction sets fill in
 *
 * fold_scalar.c is the definition of every operation: slow, scalar, obvious.
 * Every other table gives the same bits (tests/kernel); docs/NUMERICS.md says
 * which bits in words.  For one element of a target, W decoded to fp32:
 *
 *     for each delta, in the order given:
 *         for each panel of up to FOLD_PANEL ranks, in ascending order:
 *             acc = 0; for k ascending in the panel: acc = fma(B[row][k], A[k][col], acc)
 *             sum = acc in the first panel, else fl(sum + acc)
 *         W = fl(W + fl(scale * sum))
 *     result = encode(W), one rounding to nearest even, a NaN as the canonical one
 *
 * No contraction, no flush to zero, no other order.  Where a magnitude replaces the norm of W plus
 * a delta (DoRA), this is done in pieces: X from decode(), panel_sum() and add_scaled(), its norm
 * from add_squares() or add_squares_each(), then scale() or scale_each(), and encode().
 *
 * Threads: every operation is a pure function of its arguments.  The caller has
 * set the default floating-point environment (fold_environment_enter()).
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_FOLD_H
#define COMPUTE_FOLD_H

#include "base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FOLD_PANEL 64u       /* ranks that are summed in one chain */
#define FOLD_GROUP 32u       /* columns that lie together in a packed A */
#define FOLD_LANES 32u       /* sums of squares that a row is spread over */
#define FOLD_RANK_MAX 65536u /* largest rank that any operation is called with */
#define FOLD_FINITE SIZE_MAX /* returned where every result is finite */

/*
 * Factor A [rank][cols], packed: columns in groups of FOLD_GROUP, in each group the rows in order,
 *     packed[(col / FOLD_GROUP * rank + k) * FOLD_GROUP + col % FOLD_GROUP] = A[k][col]
 * The last group is filled up with zeros.  64-byte aligned.
 */
static inline uint64_t fold_packed_floats(uint64_t rank, uint64_t cols)
{
    return (cols + FOLD_GROUP - 1) / FOLD_GROUP * FOLD_GROUP * rank;
}

struct fold_delta {
    const float *a; /* packed, all cols of the target */
    const float *b; /* [rows of the segment][rank], row-major */
    uint32_t rank;  /* 1..FOLD_RANK_MAX */
    float scale;    /* fl32(weight * alpha / r) */
};

/*
 * A run of consecutive elements of one row-major [rows][cols] target.  It may begin and end inside
 * a row: row 0 of the segment is the row of its first element.
 */
struct fold_segment {
    const void *src; /* count elements of src_dtype, at any address */
    void *dst;       /* count elements of dst_dtype, at any address; == src allowed if the dtypes
                        are equally wide, no other overlap */
    enum dtype src_dtype; /* BF16, F16 or F32, likewise dst_dtype */
    enum dtype dst_dtype;
    uint64_t cols;
    uint64_t first_col; /* column of the first element, < cols */
    size_t count;
    const struct fold_delta *deltas; /* delta_count 0: a conversion */
    unsigned delta_count;
};

struct fold_ops {
    const char *name; /* "scalar", "avx2", "avx512", "neon" */

    /*
     * Fold a segment.  Returns FOLD_FINITE, or the index of the first element (0..count-1) whose
     * result is NaN or infinite; all elements are written in either case.
     */
    size_t (*fold)(const struct fold_segment *segment);

    /* dst[i] = src[i] widened to fp32, exact; src at any address. */
    void (*decode)(float *dst, const void *src, enum dtype src_dtype, size_t count);

    /* dst[i] = src[i] rounded; returns as fold() does. dst at any address. */
    size_t (*encode)(void *dst, enum dtype dst_dtype, const float *src, size_t count);

    /*
     * The pieces of fold() for a factor A too large to stay in memory, on a rectangle of
     * rows x cols with row stride `stride` (in floats, >= cols):
     *     acc as above over k < rank (1..FOLD_PANEL); sum = first ? acc : fl(sum + acc)
     * `a` is packed with this rank and covers cols; b is [rows][b_stride].  A NaN is stored as the
     * canonical one, here and below.
     */
    void (*panel_sum)(float *sum, size_t stride, size_t rows, size_t cols, const float *a,
                      const float *b, size_t b_stride, uint32_t rank, bool first);

    /* w[i] = fl(w[i] + fl(scale * sum[i])) */
    void (*add_scaled)(float *w, const float *sum, float scale, size_t count);

    /*
     * The squares of a row: lanes[i % FOLD_LANES] += x[i] * x[i], i ascending.  A product is exact
     * in double, so each addition has one rounding.  A long row comes in parts whose counts, but
     * for the last one's, are multiples of FOLD_LANES.
     */
    void (*add_squares)(double lanes[FOLD_LANES], const float *x, size_t count);

    /* The squares of columns, one row of them: sums[i] += x[i] * x[i] in double, likewise. */
    void (*add_squares_each)(double *sums, const float *x, size_t count);

    /* x[i] = fl(factor * x[i]) */
    void (*scale)(float *x, float factor, size_t count);

    /* x[i] = fl(factors[i] * x[i]) */
    void (*scale_each)(float *x, const float *factors, size_t count);
};

extern const struct fold_ops fold_scalar;

/* Put row k of A, already fp32, into its place in a packed A (whose tail columns become zero). */
void fold_pack_row(float *packed, uint64_t rank, uint64_t k, const float *row, uint64_t cols);

/* The root of a sum of squares, rounded to double and then to fp32. */
float fold_root(double squares);

/*
 * The norm of a row from its sums of squares, added as a tree:
 *     for h in 16, 8, 4, 2, 1: lanes[l] += lanes[l + h] for all l < h; then fold_root(lanes[0])
 */
float fold_norm(const double lanes[FOLD_LANES]);

/* fl(magnitude / norm): infinite or NaN for a norm of zero, 0 for an infinite one. */
float fold_dora_factor(float magnitude, float norm);

/*
 * Round to nearest, no flush to zero, no traps, as the host program may have set others; leave
 * restores what enter saved.
 */
struct fold_environment {
    uint64_t saved[4];
};
void fold_environment_enter(struct fold_environment *environment);
void fold_environment_leave(const struct fold_environment *environment);

/* The canonical NaN of a result: BF16 7fc0, F16 7e00, F32 7fc00000, a sum 7ff8000000000000. */

#endif

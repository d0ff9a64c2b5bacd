/*
 * device_task.h - what a device can be asked to compute
 *
 * The operations of fold.h, quant.h and encode.h, and those that a worker makes of several of them
 * for many rows at once, as data: a struct with everything a kernel needs, by value.  Their bits
 * are those of the scalar tables; the sentence at each struct says which.  All pointers are to
 * memory of the device.  A count of 0 is allowed everywhere.
 *
 * Pointers are aligned as their type is, but for those to bytes and to elements of a dtype, which
 * are at any address.
 *
 * Also compiled as C++ (nvcc).
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_DEVICE_TASK_H
#define COMPUTE_DEVICE_TASK_H

#include "base/dtype.h"
#include "compute/fold.h"
#include "compute/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_DELTAS_MAX 64u

/*
 * Where a task says which of its results is the first that is NaN or infinite: a word that was
 * DEVICE_FINITE becomes the least of itself and of index * 4 + class over all such results; NULL:
 * nobody asks.  The index is that which the operation of the table returns.
 */
#define DEVICE_FINITE UINT64_MAX
enum device_bad { DEVICE_BAD_INFINITY, DEVICE_BAD_MINUS_INFINITY, DEVICE_BAD_NAN };

enum device_op {
    DEVICE_FOLD,
    DEVICE_CONVERT,
    DEVICE_PANEL_SUM,
    DEVICE_ADD_SCALED,
    DEVICE_SCALE_ROWS,
    DEVICE_SCALE_COLS,
    DEVICE_DORA_ROWS,
    DEVICE_DECODE,
    DEVICE_BNB4,
    DEVICE_ROUND_TRIP,
    DEVICE_SCALED,
    DEVICE_OP_COUNT
};

/* fold_ops.fold(); segment.deltas is not looked at, `deltas` below is. */
struct device_fold {
    struct fold_segment segment;
    struct fold_delta deltas[DEVICE_DELTAS_MAX];
};

/*
 * Each of `rows` rows of `cols` elements by fold_ops.fold() with no delta, which is encode(), and
 * decode() but for a NaN, which becomes the canonical one.  Strides are in elements; a bad index is
 * row * dst_stride + column.
 */
struct device_convert {
    const void *src;
    void *dst;
    enum dtype src_dtype;
    enum dtype dst_dtype;
    uint64_t rows;
    uint64_t cols;
    uint64_t src_stride;
    uint64_t dst_stride;
};

/* fold_ops.panel_sum() */
struct device_panel_sum {
    float *sum;
    uint64_t stride;
    uint64_t rows;
    uint64_t cols;
    const float *a;
    const float *b;
    uint64_t b_stride;
    uint32_t rank;
    bool first;
};

/* fold_ops.add_scaled() */
struct device_add_scaled {
    float *w;
    const float *sum;
    float scale;
    uint64_t count;
};

/* x is rows x cols.  SCALE_ROWS: fold_ops.scale() of row r by factors[r].  SCALE_COLS: scale_each()
 * of every row by factors[cols]. */
struct device_scale {
    float *x;
    const float *factors;
    uint64_t rows;
    uint64_t cols;
};

/*
 * Row r of w, rows x cols, times fold_dora_factor(magnitudes[r], fold_norm(squares of row r of
 * `alone`)); alone == w is allowed: the norm is that of the row before.
 */
struct device_dora_rows {
    float *w;
    const float *alone;
    const float *magnitudes;
    uint64_t rows;
    uint64_t cols;
};

/* quant_ops.decode(); source.whole is not looked at, `whole` below is. */
struct device_decode {
    float *dst;
    struct quant_matrix matrix;
    struct quant_source source;
    struct quant_whole whole;
    uint64_t first;
    uint64_t count;
};

/* encode_ops.bnb4() and bnb4_round_trip() */
struct device_blocks {
    void *out;     /* float: ROUND_TRIP; uint8_t: BNB4 */
    float *absmax; /* BNB4 */
    enum quant_codes codes;
    enum dtype result_dtype; /* ROUND_TRIP */
    const float *src;
    uint64_t count;
    uint64_t block;
};

/*
 * Elements [first, first + count) of a matrix of any number of rows of `cols`, of which src has
 * those, to codes of 8 bits or, E2M1, 4.  Their scales are a grid of blocks: that of row r, column
 * c is
 *     scales[(r / rows * down + r % rows / block_rows) * across + c / block_cols - scale_first]
 * with down = ceil(rows / block_rows), across = ceil(cols / block_cols).  Within a row and a block
 * an element is encoded as by encode_ops.scaled(), or, `integers`, as by encode_int8() (codes
 * QUANT_SIGNED).  E2M1: first, count and cols are even, but for the end.  Index of a bad result:
 * from `first`, 0 .. count - 1; none with `integers`.
 */
struct device_scaled {
    uint8_t *out;
    const float *src;
    const float *scales;
    uint64_t first;
    uint64_t count;
    uint64_t rows;
    uint64_t cols;
    uint64_t block_rows;
    uint64_t block_cols;
    uint64_t scale_first;
    enum quant_codes codes;
    bool integers;
};

struct device_task {
    enum device_op op;
    uint64_t *bad; /* see above; only where an operation of the tables returns an index */
    union {
        struct device_fold fold;
        struct device_convert convert;
        struct device_panel_sum panel_sum;
        struct device_add_scaled add_scaled;
        struct device_scale scale;
        struct device_dora_rows dora_rows;
        struct device_decode decode;
        struct device_blocks blocks;
        struct device_scaled scaled;
    };
};

#endif

/*
 * quant_layout.h - where the parts of a quantised tensor lie, for those that decode them
 *
 * Codes, scales and zero points are each a plane: rows and columns of fields, packed into lines of
 * bytes.  The fields of the codes are the stored elements, the others have one for each block.  A
 * tensor whose blocks run through its rows is one row.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_QUANT_LAYOUT_H
#define COMPUTE_QUANT_LAYOUT_H

#include "base/bytes.h"
#include "compute/quant.h"
#include "compute/rounded.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers of the 4-bit codes, by QUANT_NF4, QUANT_FP4_BNB and QUANT_E2M1. */
extern const float quant_tables[3][16];

/* The stored matrices and their blocks. */
struct quant_grid {
    uint64_t matrices;
    uint64_t rows; /* of a stored matrix */
    uint64_t cols;
    uint64_t block_rows;
    uint64_t block_cols;
};

struct quant_plane {
    enum quant_packing packing; /* of the scales: QUANT_BYTES */
    unsigned bits;              /* of a field */
    uint32_t word_add;          /* to each word before its fields are taken, modulo 2^32 */
    uint64_t rows;              /* of fields, in one matrix */
    uint64_t cols;
    uint64_t lines; /* in one matrix */
    uint64_t line_bytes;
};

/* A plane of which a source has some lines, or a part of each line. */
struct quant_view {
    struct quant_plane plane;
    const uint8_t *bytes;
    uint64_t stride; /* from line to line in the source */
    uint64_t bias;   /* what is missing before its first byte */
};

COMPUTE_SHARED bool quant_zeros_are_numbers(const struct quant_matrix *matrix)
{
    return matrix->zeros == QUANT_ZEROS_NUMBERS || matrix->zeros == QUANT_ZEROS_BIASES;
}

COMPUTE_SHARED uint64_t quant_ceil(uint64_t value, uint64_t unit)
{
    return value / unit + (value % unit != 0);
}

COMPUTE_SHARED const uint8_t *quant_at(const struct quant_view *view, uint64_t line, uint64_t byte)
{
    return view->bytes + (size_t)(line * view->stride + byte - view->bias);
}

/* The matrices must be small enough for quant_check(). */
struct quant_grid quant_grid_of(const struct quant_matrix *matrix);

/* false: a size overflows.  A part that the tensor does not have is a plane of no lines. */
bool quant_plane_of(struct quant_plane *out, const struct quant_matrix *matrix,
                    enum quant_part part);

/* What decode() is given, as planes. */
void quant_views_of(struct quant_view out[QUANT_PART_COUNT], const struct quant_matrix *matrix,
                    const struct quant_source *source);

#ifdef __cplusplus
}
#endif

#endif

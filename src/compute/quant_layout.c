/*
 * quant_layout.c - where the parts of a quantised tensor lie
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/quant_layout.h"

struct quant_grid quant_grid_of(const struct quant_matrix *matrix)
{
    struct quant_grid grid = {
        .matrices = matrix->matrices,
        .rows = matrix->transposed ? matrix->cols : matrix->rows,
        .cols = matrix->transposed ? matrix->rows : matrix->cols,
        .block_rows = matrix->block_rows,
        .block_cols = matrix->block_cols,
    };

    if (matrix->block_rows == 0) {
        grid.cols *= grid.matrices * grid.rows;
        grid.matrices = grid.rows = grid.block_rows = 1;
    }
    return grid;
}

/* What word-wise adding makes of zero points that are stored less one; 0: not done by words. */
static uint32_t ones_of(unsigned bits)
{
    switch (bits) {
    case 2:
        return 0x55555555u;
    case 4:
        return 0x11111111u;
    case 8:
        return 0x01010101u;
    default:
        return 0;
    }
}

static void zeros_packing(struct quant_plane *plane, const struct quant_matrix *matrix)
{
    plane->bits = matrix->bits;
    switch (matrix->zeros) {
    case QUANT_ZEROS_NONE:
    case QUANT_ZEROS_MIDDLE:
        plane->rows = plane->cols = 0;
        return;
    case QUANT_ZEROS_BYTES:
        plane->packing = QUANT_BYTES;
        plane->bits = 8;
        return;
    case QUANT_ZEROS_WORDS_1:
        plane->word_add = ones_of(matrix->bits);
        plane->packing = QUANT_WORDS;
        return;
    case QUANT_ZEROS_WORDS:
        plane->packing = QUANT_WORDS;
        return;
    case QUANT_ZEROS_AWQ:
        plane->packing = QUANT_WORDS_AWQ;
        return;
    case QUANT_ZEROS_DOWN:
        plane->packing = QUANT_WORDS_DOWN;
        return;
    case QUANT_ZEROS_NUMBERS:
    case QUANT_ZEROS_BIASES:
        plane->packing = QUANT_BYTES;
        plane->bits = dtype_bits(matrix->scale_dtype);
        return;
    }
}

/* Words for `count` fields; false: the number of bits overflows. */
static bool words_of(uint64_t count, unsigned bits, uint64_t *out)
{
    uint64_t all;

    if (!mul_u64(count, bits, &all))
        return false;
    *out = quant_ceil(all, 32);
    return true;
}

static bool set_lines(struct quant_plane *plane)
{
    plane->lines = plane->rows;
    switch (plane->packing) {
    case QUANT_BYTES:
        return mul_u64(plane->cols, plane->bits / 8, &plane->line_bytes);
    case QUANT_HIGH_FLAT:
    case QUANT_LOW_FIRST:
        plane->line_bytes = quant_ceil(plane->cols, 2);
        return true;
    case QUANT_WORDS:
    case QUANT_WORDS_AWQ:
        return words_of(plane->cols, plane->bits, &plane->line_bytes) &&
               mul_u64(plane->line_bytes, 4, &plane->line_bytes);
    case QUANT_WORDS_DOWN:
        return words_of(plane->rows, plane->bits, &plane->lines) &&
               mul_u64(plane->cols, 4, &plane->line_bytes);
    case QUANT_BANDS:
        plane->lines = quant_ceil(plane->rows, quant_bands(plane->bits));
        return mul_u64(plane->cols, plane->bits == 3 ? 4 : 1, &plane->line_bytes);
    }
    return false;
}

bool quant_plane_of(struct quant_plane *out, const struct quant_matrix *matrix,
                    enum quant_part part)
{
    struct quant_grid grid = quant_grid_of(matrix);

    *out = (struct quant_plane){
        .packing = QUANT_BYTES,
        .rows = quant_ceil(grid.rows, grid.block_rows),
        .cols = quant_ceil(grid.cols, grid.block_cols),
    };
    if (part == QUANT_PART_CODES) {
        out->packing = matrix->packing;
        out->bits = matrix->bits;
        out->rows = grid.rows;
        out->cols = grid.cols;
    } else if (part == QUANT_PART_SCALES) {
        out->bits = dtype_bits(matrix->scale_dtype);
        if (matrix->codes == QUANT_FLOATS)
            out->rows = out->cols = 0;
    } else {
        zeros_packing(out, matrix);
    }
    return set_lines(out);
}

void quant_views_of(struct quant_view out[QUANT_PART_COUNT], const struct quant_matrix *matrix,
                    const struct quant_source *source)
{
    struct quant_reads reads[QUANT_PART_COUNT];

    quant_reads_of(reads, matrix, source->first, source->count);
    for (int part = 0; part < QUANT_PART_COUNT; part++) {
        struct quant_view *view = &out[part];

        *view = (struct quant_view){ .bytes = source->parts[part] };
        quant_plane_of(&view->plane, matrix, (enum quant_part)part);
        if (reads[part].count == 0)
            continue;
        view->stride = reads[part].count > 1 ? reads[part].bytes : view->plane.line_bytes;
        view->bias = reads[part].offset / view->plane.line_bytes * view->stride +
                     reads[part].offset % view->plane.line_bytes;
    }
}

/*
 * quant_reads.c - what of the parts of a quantised tensor a range needs
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/quant_layout.h"

/* The bytes of a line that hold columns [first, last], last included. */
static void byte_range(const struct quant_plane *plane, uint64_t first, uint64_t last,
                       uint64_t *begin, uint64_t *end)
{
    switch (plane->packing) {
    case QUANT_BYTES:
        *begin = first * (plane->bits / 8);
        *end = (last + 1) * (plane->bits / 8);
        return;
    case QUANT_HIGH_FLAT:
    case QUANT_LOW_FIRST:
        *begin = first / 2;
        *end = last / 2 + 1;
        return;
    case QUANT_WORDS:
    case QUANT_WORDS_AWQ: /* eight of 4 bits are a word in any order */
        *begin = first * plane->bits / 32 * 4;
        *end = (last * plane->bits + plane->bits - 1) / 32 * 4 + 4;
        return;
    case QUANT_WORDS_DOWN:
        *begin = first * 4;
        *end = last * 4 + 4;
        return;
    case QUANT_BANDS:
        *begin = first * (plane->bits == 3 ? 4 : 1);
        *end = (last + 1) * (plane->bits == 3 ? 4 : 1);
        return;
    }
}

/* The lines that hold rows [first, last] of the fields, last included. */
static void line_range(const struct quant_plane *plane, uint64_t first, uint64_t last,
                       uint64_t *begin, uint64_t *end)
{
    *begin = first;
    *end = last + 1;
    if (plane->packing == QUANT_WORDS_DOWN) {
        *begin = first * plane->bits / 32;
        *end = (last * plane->bits + plane->bits - 1) / 32 + 1;
    } else if (plane->packing == QUANT_BANDS) {
        bool across = first / plane->lines != last / plane->lines;

        *begin = across ? 0 : first % plane->lines;
        *end = across ? plane->lines : last % plane->lines + 1;
    }
}

/* Do fields of these rows, the first and the last one, share lines with those between them? */
static bool shares_lines(const struct quant_plane *plane, uint64_t first, uint64_t last)
{
    return plane->packing == QUANT_WORDS_DOWN ||
           (plane->packing == QUANT_BANDS && first / plane->lines != last / plane->lines);
}

/* A range of elements in one stored matrix, last ones included. */
struct range {
    uint64_t matrix;
    uint64_t row, col;
    uint64_t last_row, last_col;
};

/* One piece, from the field of the first element to that of the last. */
static struct quant_reads read_run(const struct quant_plane *plane, const struct range *range,
                                   uint64_t block_rows, uint64_t block_cols)
{
    uint64_t row = range->row / block_rows;
    uint64_t last_row = range->last_row / block_rows;
    uint64_t col = range->col / block_cols;
    uint64_t last_col = range->last_col / block_cols;
    uint64_t line, line_end, begin, end, unused;

    line_range(plane, row, last_row, &line, &line_end);
    /* Where the range goes on in the same fields from column 0, or comes from their last one. */
    if (range->row < range->last_row) {
        bool shared = shares_lines(plane, row, last_row);

        if ((range->row + 1) / block_rows == row || shared)
            col = 0;
        if ((range->last_row - 1) / block_rows == last_row || shared)
            last_col = plane->cols - 1;
    }
    byte_range(plane, col, plane->cols - 1, &begin, &unused);
    byte_range(plane, 0, last_col, &unused, &end);
    line += range->matrix * plane->lines;
    line_end += range->matrix * plane->lines;
    return (struct quant_reads){
        .offset = line * plane->line_bytes + begin,
        .bytes = (line_end - 1 - line) * plane->line_bytes + end - begin,
        .count = 1,
    };
}

/* The fields of some columns in every line of a matrix. */
static struct quant_reads read_columns(const struct quant_plane *plane, uint64_t matrix,
                                       uint64_t col, uint64_t last_col)
{
    uint64_t begin = 0;
    uint64_t end = 0;
    struct quant_reads reads;

    byte_range(plane, col, last_col, &begin, &end);
    reads = (struct quant_reads){
        .offset = matrix * plane->lines * plane->line_bytes + begin,
        .bytes = end - begin,
        .stride = plane->line_bytes,
        .count = plane->lines,
    };
    if (reads.bytes == reads.stride) {
        reads.bytes *= reads.count;
        reads.count = 1;
    }
    if (reads.count == 1)
        reads.stride = 0;
    return reads;
}

static struct range range_of(const struct quant_matrix *matrix, const struct quant_grid *grid,
                             uint64_t first, uint64_t count)
{
    uint64_t elements = grid->rows * grid->cols;
    uint64_t last = first + count - 1;
    uint64_t width = matrix->block_rows ? matrix->cols : grid->cols;

    return (struct range){
        .matrix = first / elements,
        .row = first % elements / width,
        .col = first % elements % width,
        .last_row = last % elements / width,
        .last_col = last % elements % width,
    };
}

void quant_reads_of(struct quant_reads out[QUANT_PART_COUNT], const struct quant_matrix *matrix,
                    uint64_t first, uint64_t count)
{
    struct quant_grid grid = quant_grid_of(matrix);
    struct range range;
    struct quant_plane plane;

    for (int part = 0; part < QUANT_PART_COUNT; part++)
        out[part] = (struct quant_reads){ 0 };
    if (count == 0)
        return;
    range = range_of(matrix, &grid, first, count);
    for (int part = 0; part < QUANT_PART_COUNT; part++) {
        uint64_t block_rows = part == QUANT_PART_CODES ? 1 : grid.block_rows;
        uint64_t block_cols = part == QUANT_PART_CODES ? 1 : grid.block_cols;

        quant_plane_of(&plane, matrix, (enum quant_part)part);
        if (plane.lines == 0)
            continue;
        if (matrix->transposed) /* a logical row is a stored column */
            out[part] = read_columns(&plane, range.matrix, range.row / block_cols,
                                     range.last_row / block_cols);
        else
            out[part] = read_run(&plane, &range, block_rows, block_cols);
    }
}

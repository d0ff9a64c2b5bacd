/*
 * quant_layout.c - where the parts of a quantised tensor lie, and what of them a range needs
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
        plane->lines = plane->rows / (8 / plane->bits);
        plane->line_bytes = plane->cols;
        return true;
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
    } else {
        zeros_packing(out, matrix);
    }
    return set_lines(out);
}

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
        *begin = first;
        *end = last + 1;
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

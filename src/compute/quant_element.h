/*
 * quant_element.h - one element of a quantised tensor, for the scalar definition and for devices
 *
 * docs/NUMERICS.md has the steps in words.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_QUANT_ELEMENT_H
#define COMPUTE_QUANT_ELEMENT_H

#include "compute/element.h"
#include "compute/quant_layout.h"

/* An element by where it is stored: in which matrix, at which row and column, of which block. */
struct quant_place {
    uint64_t matrix;
    uint64_t row, col;
    uint64_t block_row, block_col;
};

/* What the elements of a block have in common. */
struct quant_scaling {
    float s;
    float number; /* zero point or bias that is a number, else 0 */
    int zero;     /* zero point that is an integer, else 0 */
};

/* A little-endian word at any address. */
COMPUTE_SHARED uint32_t quant_word(const uint8_t *p)
{
#if ROUNDED_ON_DEVICE
    if (((uintptr_t)p & 3u) == 0) /* nearly always, and a load of bytes is four */
        return *reinterpret_cast<const uint32_t *>(p);
#endif
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

COMPUTE_SHARED uint32_t quant_word_at(const struct quant_view *view, uint64_t line, uint64_t byte)
{
    return quant_word(quant_at(view, line, byte)) + view->plane.word_add;
}

/* The field of a plane at row i, column j of a matrix. */
COMPUTE_SHARED uint32_t quant_field(const struct quant_view *view, uint64_t matrix, uint64_t i,
                                    uint64_t j)
{
    const struct quant_plane *plane = &view->plane;
    const unsigned bits = plane->bits;
    const uint32_t mask = UINT32_MAX >> (32 - bits);
    uint64_t line = matrix * plane->lines + i;
    uint64_t bit;
    uint64_t pair;

    switch (plane->packing) {
    case QUANT_BYTES:
        if (bits == 8)
            return *quant_at(view, line, j);
        return element_pattern(quant_at(view, line, j * (bits / 8)), bits / 8);
    case QUANT_HIGH_FLAT:
        return *quant_at(view, line, j / 2) >> (j % 2 ? 0 : 4) & mask;
    case QUANT_LOW_FIRST:
        return *quant_at(view, line, j / 2) >> (j % 2 ? 4 : 0) & mask;
    case QUANT_WORDS:
        bit = j * bits;
        pair = quant_word_at(view, line, bit / 32 * 4);
        if (bit % 32 + bits > 32)
            pair |= (uint64_t)quant_word_at(view, line, bit / 32 * 4 + 4) << 32;
        return (uint32_t)(pair >> bit % 32) & mask;
    case QUANT_WORDS_DOWN:
        bit = i * bits;
        line = matrix * plane->lines + bit / 32;
        pair = quant_word_at(view, line, j * 4);
        if (bit % 32 + bits > 32)
            pair |= (uint64_t)quant_word_at(view, line + 1, j * 4) << 32;
        return (uint32_t)(pair >> bit % 32) & mask;
    case QUANT_WORDS_AWQ: /* columns 0 2 4 6 in the low half of the word, 1 3 5 7 in the high one */
        return quant_word_at(view, line, j / 8 * 4) >> (j % 2 * 16 + j % 8 / 2 * 4) & mask;
    case QUANT_BANDS:
        line = matrix * plane->lines + i % plane->lines;
        if (bits == 3)
            return quant_word_at(view, line, j * 4) >>
                       (bits * (QUANT_BANDS_OF_3 - 1 - i / plane->lines)) &
                   mask;
        return *quant_at(view, line, j) >> (8 - bits * (i / plane->lines + 1)) & mask;
    }
    return 0;
}

/* A stored scale, widened. */
COMPUTE_SHARED float quant_stored_scale(const struct quant_view *view, enum dtype dtype,
                                        uint64_t line, uint64_t j)
{
    const unsigned width = view->plane.bits / 8;
    const uint8_t *bytes = quant_at(view, line, j * width);

    if (dtype == DTYPE_F8_E4M3)
        return f32_from_bits(e4m3_decode(*bytes));
    if (dtype == DTYPE_F8_E8M0)
        return f32_from_bits(e8m0_decode(*bytes));
    return f32_from_bits(element_load(bytes, dtype));
}

/* `map` is whole->map, or a copy of it. */
COMPUTE_SHARED float quant_scale_of(const struct quant_matrix *matrix,
                                    const struct quant_view *scales,
                                    const struct quant_whole *whole, const float *map,
                                    const struct quant_place *place)
{
    uint64_t line = place->matrix * scales->plane.lines + place->block_row;
    float stored;

    if (matrix->scale == QUANT_SCALE_NESTED) {
        uint64_t block = line * scales->plane.cols + place->block_col;

        return f32_add(
            f32_mul(map[*quant_at(scales, line, place->block_col)], whole->nested[block / 256]),
            whole->offset);
    }
    stored = quant_stored_scale(scales, matrix->scale_dtype, line, place->block_col);
    if (matrix->scale == QUANT_SCALE_TIMES_WHOLE)
        return f32_mul(stored, whole->whole);
    if (matrix->scale == QUANT_SCALE_OVER_WHOLE)
        return f32_div(stored, whole->whole);
    return stored;
}

COMPUTE_SHARED int quant_zero_of(const struct quant_matrix *matrix, const struct quant_view *zeros,
                                 const struct quant_place *place)
{
    int middle = matrix->codes == QUANT_UNSIGNED ? 1 << (matrix->bits - 1) : 0;
    uint32_t stored;

    if (matrix->zeros == QUANT_ZEROS_NONE || quant_zeros_are_numbers(matrix))
        return 0;
    if (matrix->zeros == QUANT_ZEROS_MIDDLE)
        return middle;
    stored = quant_field(zeros, place->matrix, place->block_row, place->block_col);
    if (matrix->zeros == QUANT_ZEROS_BYTES)
        return (int8_t)stored + middle;
    if (matrix->zeros == QUANT_ZEROS_WORDS_1 && matrix->bits == 3)
        return (int)((stored + 1) & 7);
    return (int)stored;
}

COMPUTE_SHARED struct quant_scaling
quant_scaling_of(const struct quant_matrix *matrix, const struct quant_view *views,
                 const struct quant_whole *whole, const float *map, const struct quant_place *place)
{
    const struct quant_view *zeros = &views[QUANT_PART_ZEROS];
    struct quant_scaling scaling = { 1.0f, 0.0f, 0 };

    if (matrix->codes == QUANT_FLOATS)
        return scaling;
    scaling.s = quant_scale_of(matrix, &views[QUANT_PART_SCALES], whole, map, place);
    scaling.zero = quant_zero_of(matrix, zeros, place);
    if (quant_zeros_are_numbers(matrix))
        scaling.number = quant_stored_scale(zeros, matrix->scale_dtype,
                                            place->matrix * zeros->plane.lines + place->block_row,
                                            place->block_col);
    return scaling;
}

/* Which of quant_tables; of codes that have none, any. */
COMPUTE_SHARED unsigned quant_table_of(enum quant_codes codes)
{
    return codes == QUANT_FP4_BNB || codes == QUANT_E2M1 ? (unsigned)codes : (unsigned)QUANT_NF4;
}

COMPUTE_SHARED float quant_number_of(const struct quant_matrix *matrix, const float *table,
                                     uint32_t code, int zero)
{
    switch (matrix->codes) {
    case QUANT_NF4:
    case QUANT_FP4_BNB:
    case QUANT_E2M1:
        return table[code];
    case QUANT_E4M3:
        return f32_from_bits(e4m3_decode((uint8_t)code));
    case QUANT_SIGNED:
        return (float)((int8_t)code - zero);
    case QUANT_UNSIGNED:
        return (float)((int)code - zero);
    case QUANT_FLOATS:
        return f32_from_bits(element_widen(code, matrix->scale_dtype));
    }
    return 0.0f;
}

/* The pattern of the decoded element. */
COMPUTE_SHARED uint32_t quant_weight(const struct quant_matrix *matrix, const float *table,
                                     uint32_t code, const struct quant_scaling *scaling)
{
    const enum dtype result = matrix->result_dtype;
    float w = quant_number_of(matrix, table, code, scaling->zero);

    if (matrix->zeros == QUANT_ZEROS_NUMBERS)
        w = f32_from_bits(element_round(result, f32_bits(f32_sub(w, scaling->number))));
    w = f32_mul(w, scaling->s);
    if (matrix->zeros == QUANT_ZEROS_BIASES)
        w = f32_add(f32_from_bits(element_round(result, f32_bits(w))), scaling->number);
    if (matrix->scale == QUANT_SCALE_ROW_127)
        w = f32_mul(w, 1.0f / 127.0f);
    return element_round(result, f32_bits(w));
}

/* Of a stored row and column. */
COMPUTE_SHARED struct quant_place quant_place_at(const struct quant_grid *grid,
                                                 const struct quant_whole *whole, uint64_t matrix,
                                                 uint64_t row, uint64_t col)
{
    struct quant_place place;

    place.matrix = matrix;
    place.row = row;
    place.col = col;
    place.block_row = whole->group_of ? whole->group_of[row]
                                      : element_divide(row, grid->block_rows);
    place.block_col = element_divide(col, grid->block_cols);
    return place;
}

/* Of element `index` of the tensor. */
COMPUTE_SHARED struct quant_place quant_place_of(const struct quant_matrix *matrix,
                                                 const struct quant_grid *grid,
                                                 const struct quant_whole *whole, uint64_t index)
{
    uint64_t elements = grid->rows * grid->cols;
    uint64_t width = matrix->transposed ? grid->rows : grid->cols;
    uint64_t in_matrix = element_divide(index, elements);
    uint64_t row = element_divide(index - in_matrix * elements, width);
    uint64_t col = index - in_matrix * elements - row * width;

    if (matrix->transposed)
        return quant_place_at(grid, whole, in_matrix, col, row);
    return quant_place_at(grid, whole, in_matrix, row, col);
}

#endif

/*
 * quant_scalar.c - the definition of what quant.h decodes
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/element.h"
#include "compute/quant_layout.h"

#include <float.h>
#include <string.h>

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "docs/NUMERICS.md fixes every rounding: no -ffast-math, no x87"
#endif

const float quant_tables[3][16] = {
    [QUANT_NF4] = { -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
                    0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
                    0.7229568362236023f, 1.0f },
    [QUANT_FP4_BNB] = { 0.0f, 0.0052083333f, 0.66666667f, 1.0f, 0.33333333f, 0.5f, 0.16666667f,
                        0.25f, -0.0f, -0.0052083333f, -0.66666667f, -1.0f, -0.33333333f, -0.5f,
                        -0.16666667f, -0.25f },
    [QUANT_E2M1] = { 0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f, -1.0f, -1.5f,
                     -2.0f, -3.0f, -4.0f, -6.0f },
};

static uint32_t word_at(const struct quant_view *view, uint64_t line, uint64_t byte)
{
    return load_le32(quant_at(view, line, byte)) + view->plane.word_add;
}

/* The field of a plane at row i, column j of a matrix. */
static uint32_t field(const struct quant_view *view, uint64_t matrix, uint64_t i, uint64_t j)
{
    const struct quant_plane *plane = &view->plane;
    const unsigned bits = plane->bits;
    const uint32_t mask = (1u << bits) - 1;
    uint64_t line = matrix * plane->lines + i;
    uint64_t bit;
    uint64_t pair;

    switch (plane->packing) {
    case QUANT_BYTES:
        return *quant_at(view, line, j);
    case QUANT_HIGH_FLAT:
        return *quant_at(view, line, j / 2) >> (j % 2 ? 0 : 4) & mask;
    case QUANT_LOW_FIRST:
        return *quant_at(view, line, j / 2) >> (j % 2 ? 4 : 0) & mask;
    case QUANT_WORDS:
        bit = j * bits;
        pair = word_at(view, line, bit / 32 * 4);
        if (bit % 32 + bits > 32)
            pair |= (uint64_t)word_at(view, line, bit / 32 * 4 + 4) << 32;
        return (uint32_t)(pair >> bit % 32) & mask;
    case QUANT_WORDS_DOWN:
        bit = i * bits;
        line = matrix * plane->lines + bit / 32;
        pair = word_at(view, line, j * 4);
        if (bit % 32 + bits > 32)
            pair |= (uint64_t)word_at(view, line + 1, j * 4) << 32;
        return (uint32_t)(pair >> bit % 32) & mask;
    case QUANT_WORDS_AWQ: /* columns 0 2 4 6 in the low half of the word, 1 3 5 7 in the high one */
        return word_at(view, line, j / 8 * 4) >> (j % 2 * 16 + j % 8 / 2 * 4) & mask;
    case QUANT_BANDS:
        line = matrix * plane->lines + i % plane->lines;
        return *quant_at(view, line, j) >> (8 - bits * (i / plane->lines + 1)) & mask;
    }
    return 0;
}

/* A stored scale, widened. */
static float stored_scale(const struct quant_view *view, enum dtype dtype, uint64_t line,
                          uint64_t j)
{
    const uint8_t *bytes = quant_at(view, line, j * dtype_bytes(dtype));
    uint16_t half;
    uint32_t word;

    if (dtype == DTYPE_F8_E4M3)
        return f32_from_bits(e4m3_decode(*bytes));
    if (dtype == DTYPE_F8_E8M0)
        return f32_from_bits(e8m0_decode(*bytes));
    if (dtype == DTYPE_F32) {
        memcpy(&word, bytes, sizeof(word));
        return f32_from_bits(word);
    }
    memcpy(&half, bytes, sizeof(half));
    return f32_from_bits(dtype == DTYPE_BF16 ? bf16_decode(half) : f16_decode(half));
}

/* An element by where it is stored: in which matrix, at which row and column, of which block. */
struct element {
    uint64_t matrix;
    uint64_t row, col;
    uint64_t block_row, block_col;
};

/* The volatile, here and below, keeps any compiler from fusing. */
static float scale_of(const struct quant_matrix *matrix, const struct quant_view *scales,
                      const struct quant_whole *whole, const struct element *element)
{
    uint64_t line = element->matrix * scales->plane.lines + element->block_row;
    volatile float product;

    if (matrix->scale == QUANT_SCALE_NESTED) { /* one line, so that a column is a block */
        product = whole->map[*quant_at(scales, line, element->block_col)] *
                  whole->nested[element->block_col / 256];
        return product + whole->offset;
    }
    product = stored_scale(scales, matrix->scale_dtype, line, element->block_col);
    if (matrix->scale == QUANT_SCALE_TIMES_WHOLE)
        return product * whole->whole;
    if (matrix->scale == QUANT_SCALE_OVER_WHOLE)
        return product / whole->whole;
    return product;
}

static int zero_of(const struct quant_matrix *matrix, const struct quant_view *zeros,
                   const struct element *element)
{
    int middle = matrix->codes == QUANT_UNSIGNED ? 1 << (matrix->bits - 1) : 0;
    uint32_t stored;

    if (matrix->zeros == QUANT_ZEROS_NONE || quant_zeros_are_numbers(matrix))
        return 0;
    if (matrix->zeros == QUANT_ZEROS_MIDDLE)
        return middle;
    stored = field(zeros, element->matrix, element->block_row, element->block_col);
    if (matrix->zeros == QUANT_ZEROS_BYTES)
        return (int8_t)stored + middle;
    if (matrix->zeros == QUANT_ZEROS_WORDS_1 && matrix->bits == 3)
        return (int)((stored + 1) & 7);
    return (int)stored;
}

static float number_of(enum quant_codes codes, uint32_t code, int zero)
{
    switch (codes) {
    case QUANT_NF4:
    case QUANT_FP4_BNB:
    case QUANT_E2M1:
        return quant_tables[codes][code];
    case QUANT_E4M3:
        return f32_from_bits(e4m3_decode((uint8_t)code));
    case QUANT_SIGNED:
        return (float)((int8_t)code - zero);
    case QUANT_UNSIGNED:
        return (float)((int)code - zero);
    }
    return 0.0f;
}

/* The rounded product of number and scale, with a zero point or bias that is a number. */
static float weight_of(const struct quant_matrix *matrix, const struct quant_view *zeros,
                       const struct element *element, float v, float s)
{
    uint64_t line = element->matrix * zeros->plane.lines + element->block_row;
    volatile float w = v;
    float zero = 0.0f;

    if (quant_zeros_are_numbers(matrix))
        zero = stored_scale(zeros, matrix->scale_dtype, line, element->block_col);
    if (matrix->zeros == QUANT_ZEROS_NUMBERS) {
        w = w - zero;
        w = f32_from_bits(element_round(matrix->result_dtype, f32_bits(w)));
    }
    w = w * s;
    if (matrix->zeros == QUANT_ZEROS_BIASES) {
        w = f32_from_bits(element_round(matrix->result_dtype, f32_bits(w)));
        w = w + zero;
    }
    if (matrix->scale == QUANT_SCALE_ROW_127)
        w = w * (1.0f / 127.0f);
    return w;
}

static struct element element_of(const struct quant_matrix *matrix, const struct quant_grid *grid,
                                 const struct quant_whole *whole, uint64_t index)
{
    uint64_t elements = grid->rows * grid->cols;
    uint64_t width = matrix->transposed ? grid->rows : grid->cols;
    uint64_t row = index % elements / width;
    uint64_t col = index % elements % width;
    struct element element = {
        .matrix = index / elements,
        .row = matrix->transposed ? col : row,
        .col = matrix->transposed ? row : col,
    };

    element.block_row = whole->group_of ? whole->group_of[element.row]
                                        : element.row / grid->block_rows;
    element.block_col = element.col / grid->block_cols;
    return element;
}

static size_t decode(float *dst, const struct quant_matrix *matrix,
                     const struct quant_source *source, uint64_t first, size_t count)
{
    struct quant_grid grid = quant_grid_of(matrix);
    struct quant_view views[QUANT_PART_COUNT];
    size_t bad = FOLD_FINITE;

    quant_views_of(views, matrix, source);
    for (size_t i = 0; i < count; i++) {
        struct element element = element_of(matrix, &grid, source->whole, first + i);
        uint32_t code = field(&views[QUANT_PART_CODES], element.matrix, element.row, element.col);
        int zero = zero_of(matrix, &views[QUANT_PART_ZEROS], &element);
        float s = scale_of(matrix, &views[QUANT_PART_SCALES], source->whole, &element);
        float w = weight_of(matrix, &views[QUANT_PART_ZEROS], &element,
                            number_of(matrix->codes, code, zero), s);
        uint32_t bits = element_round(matrix->result_dtype, f32_bits(w));

        dst[i] = f32_from_bits(bits);
        if ((bits & F32_MAGNITUDE) >= F32_INFINITY && bad == FOLD_FINITE)
            bad = i;
    }
    return bad;
}

const struct quant_ops quant_scalar = { .name = "scalar", .decode = decode };

/*
 * quant.c - whether a quantised tensor is one that is decoded
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/quant.h"

#include "compute/quant_layout.h"

#include <inttypes.h>
#include <math.h>

static bool is_table(enum quant_codes codes)
{
    return codes == QUANT_NF4 || codes == QUANT_FP4_BNB || codes == QUANT_E2M1;
}

/* The packings that codes of a kind and width may have. */
static bool codes_fit(const struct quant_matrix *matrix)
{
    const unsigned bits = matrix->bits;

    switch (matrix->packing) {
    case QUANT_BYTES:
        if (matrix->codes == QUANT_FLOATS)
            return bits == dtype_bits(matrix->scale_dtype);
        return bits == 8 && !is_table(matrix->codes);
    case QUANT_HIGH_FLAT:
        return bits == 4 && is_table(matrix->codes);
    case QUANT_LOW_FIRST:
        return bits == 4 && is_table(matrix->codes);
    case QUANT_WORDS:
        return matrix->codes == QUANT_UNSIGNED &&
               (bits == 2 || bits == 3 || bits == 4 || bits == 8 ||
                ((bits == 5 || bits == 6) && matrix->zeros == QUANT_ZEROS_BIASES));
    case QUANT_WORDS_DOWN:
        return matrix->codes == QUANT_UNSIGNED && matrix->transposed &&
               (bits == 2 || bits == 3 || bits == 4 || bits == 8);
    case QUANT_WORDS_AWQ:
        return matrix->codes == QUANT_UNSIGNED && matrix->transposed && bits == 4;
    case QUANT_BANDS:
        return matrix->codes == QUANT_UNSIGNED && !matrix->transposed &&
               (bits == 1 || bits == 2 || bits == 3 || bits == 4) &&
               (bits == 3 || matrix->rows % quant_bands(bits) == 0);
    }
    return false;
}

static bool zeros_fit(const struct quant_matrix *matrix)
{
    switch (matrix->zeros) {
    case QUANT_ZEROS_NONE:
        return matrix->codes != QUANT_UNSIGNED;
    case QUANT_ZEROS_BYTES:
        return matrix->codes == QUANT_UNSIGNED || matrix->codes == QUANT_SIGNED;
    case QUANT_ZEROS_AWQ:
        return matrix->codes == QUANT_UNSIGNED && matrix->bits == 4;
    case QUANT_ZEROS_MIDDLE:
    case QUANT_ZEROS_WORDS:
    case QUANT_ZEROS_WORDS_1:
    case QUANT_ZEROS_DOWN:
        return matrix->codes == QUANT_UNSIGNED;
    case QUANT_ZEROS_NUMBERS:
    case QUANT_ZEROS_BIASES:
        return matrix->codes == QUANT_UNSIGNED && matrix->scale == QUANT_SCALE_PLAIN &&
               matrix->scale_dtype == matrix->result_dtype;
    }
    return false;
}

static bool scale_fits(const struct quant_matrix *matrix)
{
    const enum dtype dtype = matrix->scale_dtype;

    if (matrix->codes == QUANT_FLOATS)
        return matrix->scale == QUANT_SCALE_PLAIN && dtype == matrix->result_dtype;
    switch (matrix->scale) {
    case QUANT_SCALE_PLAIN:
        return dtype_is_computed(dtype) || dtype == DTYPE_F8_E4M3 || dtype == DTYPE_F8_E8M0;
    case QUANT_SCALE_NESTED:
        return dtype == DTYPE_U8 && matrix->packing == QUANT_HIGH_FLAT;
    case QUANT_SCALE_TIMES_WHOLE:
    case QUANT_SCALE_OVER_WHOLE:
        return dtype == DTYPE_F8_E4M3;
    case QUANT_SCALE_ROW_127:
        return dtype == DTYPE_F32 && matrix->codes == QUANT_SIGNED &&
               matrix->zeros == QUANT_ZEROS_NONE;
    }
    return false;
}

static bool blocks_fit(const struct quant_matrix *matrix)
{
    if (matrix->packing != QUANT_HIGH_FLAT)
        return matrix->block_rows && matrix->block_cols;
    if (!matrix->transposed)
        return !matrix->block_rows && matrix->block_cols;
    return matrix->block_rows == 1 && matrix->block_cols && matrix->block_cols % 2 == 0 &&
           matrix->rows % matrix->block_cols == 0;
}

static int check_scheme(const struct quant_matrix *matrix, struct error *err)
{
    uint64_t elements;

    if (!codes_fit(matrix))
        return error_set(err, ERR_FORMAT, "weights of %u bits in this packing are not decoded",
                         matrix->bits);
    if (!zeros_fit(matrix))
        return error_set(err, ERR_FORMAT, "these zero points do not belong to such codes");
    if (!scale_fits(matrix))
        return error_set(err, ERR_FORMAT, "scales of dtype %s do not belong to such codes",
                         dtype_name(matrix->scale_dtype));
    if (!dtype_is_computed(matrix->result_dtype))
        return error_set(err, ERR_FORMAT,
                         "quantised weights are decoded to BF16, F16 or F32, not to %s",
                         dtype_name(matrix->result_dtype));
    if (!blocks_fit(matrix))
        return error_set(err, ERR_FORMAT,
                         "a block of %" PRIu64 " x %" PRIu64 " weights is not decoded",
                         matrix->block_rows, matrix->block_cols);
    if (!mul_u64(matrix->matrices, matrix->rows, &elements) ||
        !mul_u64(elements, matrix->cols, &elements) || elements == 0)
        return error_set(err, ERR_FORMAT,
                         "a quantised weight of shape [%" PRIu64 ", %" PRIu64 ", %" PRIu64
                         "] is empty or too large",
                         matrix->matrices, matrix->rows, matrix->cols);
    return 0;
}

int quant_check(const struct quant_matrix *matrix, const uint64_t part_bytes[QUANT_PART_COUNT],
                struct error *err)
{
    static const char *const names[QUANT_PART_COUNT] = { "codes", "scales", "zero points" };
    int code = check_scheme(matrix, err);

    for (int part = 0; !code && part < QUANT_PART_COUNT; part++) {
        struct quant_plane plane;
        uint64_t bytes;

        if (!quant_plane_of(&plane, matrix, (enum quant_part)part) ||
            !mul_u64(plane.lines, plane.line_bytes, &bytes) ||
            !mul_u64(bytes, matrix->block_rows ? matrix->matrices : 1, &bytes))
            return error_set(err, ERR_FORMAT, "the size of its %s overflows", names[part]);
        if (bytes != part_bytes[part])
            code = error_set(err, ERR_FORMAT,
                             "its %s have %" PRIu64 " bytes and its shape [%" PRIu64 ", %" PRIu64
                             ", %" PRIu64 "] with blocks of %" PRIu64 " x %" PRIu64
                             " needs %" PRIu64,
                             names[part], part_bytes[part], matrix->matrices, matrix->rows,
                             matrix->cols, matrix->block_rows, matrix->block_cols, bytes);
    }
    return code;
}

int quant_check_whole(const struct quant_matrix *matrix, const struct quant_whole *whole,
                      struct error *err)
{
    struct quant_grid grid = quant_grid_of(matrix);
    uint64_t groups = quant_ceil(grid.rows, grid.block_rows);

    if ((matrix->scale == QUANT_SCALE_TIMES_WHOLE || matrix->scale == QUANT_SCALE_OVER_WHOLE) &&
        (!isfinite(whole->whole) || whole->whole == 0.0f))
        return error_set(err, ERR_FORMAT, "its global scale is %g and must be finite and not 0",
                         (double)whole->whole);
    if (!whole->group_of)
        return 0;
    if (!matrix->transposed)
        return error_set(err, ERR_FORMAT,
                         "inputs in groups of their own are decoded only where inputs are rows");
    for (uint64_t i = 0; i < grid.rows; i++) {
        if (whole->group_of[i] >= groups)
            return error_set(err, ERR_FORMAT,
                             "input %" PRIu64 " is in group %" PRIu32 " of %" PRIu64, i,
                             whole->group_of[i], groups);
    }
    return 0;
}

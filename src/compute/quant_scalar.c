/*
 * quant_scalar.c - the definition of what quant.h decodes
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/quant_element.h"

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

static size_t decode(float *dst, const struct quant_matrix *matrix,
                     const struct quant_source *source, uint64_t first, size_t count)
{
    struct quant_grid grid = quant_grid_of(matrix);
    struct quant_view views[QUANT_PART_COUNT];
    size_t bad = FOLD_FINITE;

    quant_views_of(views, matrix, source);
    for (size_t i = 0; i < count; i++) {
        struct quant_place place = quant_place_of(matrix, &grid, source->whole, first + i);
        struct quant_scaling scaling = quant_scaling_of(matrix, views, source->whole,
                                                        source->whole->map, &place);
        uint32_t code = quant_field(&views[QUANT_PART_CODES], place.matrix, place.row, place.col);
        uint32_t bits = quant_weight(matrix, quant_tables[quant_table_of(matrix->codes)], code,
                                     &scaling);

        dst[i] = f32_from_bits(bits);
        if ((bits & F32_MAGNITUDE) >= F32_INFINITY && bad == FOLD_FINITE)
            bad = i;
    }
    return bad;
}

const struct quant_ops quant_scalar = { .name = "scalar", .decode = decode };

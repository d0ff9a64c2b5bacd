/*
 * fold_scalar.c - the definition of every operation in fold.h
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/element.h"
#include "compute/fold.h"

#include <float.h>
#include <string.h>

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "docs/NUMERICS.md fixes every rounding: no -ffast-math, no x87"
#endif

/* One chain: acc = fma(b[k], a[k], acc) from 0, where a[k] are FOLD_GROUP floats apart. */
static float chain(const float *a, const float *b, uint32_t rank)
{
    float acc = 0.0f;

    for (uint32_t k = 0; k < rank; k++)
        acc = f32_fma(b[k], a[(size_t)k * FOLD_GROUP], acc);
    return acc;
}

static float fold_element(float w, const struct fold_delta *delta, uint64_t row, uint64_t col)
{
    const float *a = delta->a + col / FOLD_GROUP * delta->rank * FOLD_GROUP + col % FOLD_GROUP;
    const float *b = delta->b + row * delta->rank;
    float sum = 0.0f;

    for (uint32_t k = 0; k < delta->rank; k += FOLD_PANEL) {
        uint32_t left = delta->rank - k;
        float acc = chain(a + (size_t)k * FOLD_GROUP, b + k, left < FOLD_PANEL ? left : FOLD_PANEL);

        sum = k == 0 ? acc : sum + acc;
    }
    return element_add_scaled(w, delta->scale, sum);
}

static size_t fold(const struct fold_segment *segment)
{
    const unsigned char *src = segment->src;
    unsigned char *dst = segment->dst;
    size_t first = FOLD_FINITE;

    for (size_t i = 0; i < segment->count; i++) {
        uint64_t row = (segment->first_col + i) / segment->cols;
        uint64_t col = (segment->first_col + i) % segment->cols;
        uint32_t bits = element_load(src + i * dtype_bytes(segment->src_dtype), segment->src_dtype);
        float w = f32_from_bits(bits);

        for (unsigned d = 0; d < segment->delta_count; d++)
            w = fold_element(w, &segment->deltas[d], row, col);
        if (segment->delta_count)
            bits = f32_bits(w);
        if (!element_store(dst + i * dtype_bytes(segment->dst_dtype), segment->dst_dtype, bits) &&
            first == FOLD_FINITE)
            first = i;
    }
    return first;
}

static void decode(float *dst, const void *src, enum dtype src_dtype, size_t count)
{
    const unsigned char *bytes = src;

    for (size_t i = 0; i < count; i++) {
        uint32_t bits = element_load(bytes + i * dtype_bytes(src_dtype), src_dtype);

        memcpy(dst + i, &bits, sizeof(bits));
    }
}

static size_t encode(void *dst, enum dtype dst_dtype, const float *src, size_t count)
{
    unsigned char *bytes = dst;
    size_t first = FOLD_FINITE;

    for (size_t i = 0; i < count; i++) {
        if (!element_store(bytes + i * dtype_bytes(dst_dtype), dst_dtype, f32_bits(src[i])) &&
            first == FOLD_FINITE)
            first = i;
    }
    return first;
}

static void panel_sum(float *sum, size_t stride, size_t rows, size_t cols, const float *a,
                      const float *b, size_t b_stride, uint32_t rank, bool first)
{
    for (size_t row = 0; row < rows; row++) {
        for (size_t col = 0; col < cols; col++) {
            float *cell = sum + row * stride + col;
            float acc = chain(a + col / FOLD_GROUP * rank * FOLD_GROUP + col % FOLD_GROUP,
                              b + row * b_stride, rank);

            *cell = f32_canonical(first ? acc : *cell + acc);
        }
    }
}

static void add_scaled(float *w, const float *sum, float scale, size_t count)
{
    for (size_t i = 0; i < count; i++)
        w[i] = f32_canonical(element_add_scaled(w[i], scale, sum[i]));
}

static void add_squares(double lanes[FOLD_LANES], const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        lanes[i % FOLD_LANES] = f64_canonical(f64_add_square(lanes[i % FOLD_LANES], x[i]));
}

static void add_squares_each(double *sums, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sums[i] = f64_canonical(f64_add_square(sums[i], x[i]));
}

static void scale(float *x, float factor, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = f32_canonical(factor * x[i]);
}

static void scale_each(float *x, const float *factors, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = f32_canonical(factors[i] * x[i]);
}

const struct fold_ops fold_scalar = {
    .name = "scalar",
    .fold = fold,
    .decode = decode,
    .encode = encode,
    .panel_sum = panel_sum,
    .add_scaled = add_scaled,
    .add_squares = add_squares,
    .add_squares_each = add_squares_each,
    .scale = scale,
    .scale_each = scale_each,
};

/*
 * fold_scalar.c - the definition of every operation in fold.h
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/convert.h"
#include "compute/fold.h"

#include <float.h>
#include <math.h>
#include <string.h>

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "docs/NUMERICS.md fixes every rounding: no -ffast-math, no x87"
#endif

static uint32_t load_f32_bits(const unsigned char *src, enum dtype dtype)
{
    uint16_t half;
    uint32_t word;

    if (dtype == DTYPE_F32) {
        memcpy(&word, src, sizeof(word));
        return word;
    }
    memcpy(&half, src, sizeof(half));
    return dtype == DTYPE_BF16 ? bf16_decode(half) : f16_decode(half);
}

/* Returns whether the stored number is finite. */
static bool store_f32_bits(unsigned char *dst, enum dtype dtype, uint32_t bits)
{
    uint32_t magnitude = bits & F32_MAGNITUDE;
    uint16_t half;
    uint32_t word;

    if (dtype == DTYPE_F32) {
        word = f32_encode(bits);
        memcpy(dst, &word, sizeof(word));
        return magnitude < F32_OVERFLOW;
    }
    half = dtype == DTYPE_BF16 ? bf16_encode(bits) : f16_encode(bits);
    memcpy(dst, &half, sizeof(half));
    return magnitude < (dtype == DTYPE_BF16 ? BF16_OVERFLOW : F16_OVERFLOW);
}

/* One chain: acc = fma(b[k], a[k], acc) from 0, where a[k] are FOLD_GROUP floats apart. */
static float chain(const float *a, const float *b, uint32_t rank)
{
    float acc = 0.0f;

    for (uint32_t k = 0; k < rank; k++)
        acc = fmaf(b[k], a[(size_t)k * FOLD_GROUP], acc);
    return acc;
}

/* w + scale * sum, two roundings; the volatile keeps any compiler from fusing them. */
static float scaled_sum(float w, float scale, float sum)
{
    volatile float d = scale * sum;

    return w + d;
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
    return scaled_sum(w, delta->scale, sum);
}

static size_t fold(const struct fold_segment *segment)
{
    const unsigned char *src = segment->src;
    unsigned char *dst = segment->dst;
    size_t first = FOLD_FINITE;

    for (size_t i = 0; i < segment->count; i++) {
        uint64_t row = (segment->first_col + i) / segment->cols;
        uint64_t col = (segment->first_col + i) % segment->cols;
        uint32_t bits = load_f32_bits(src + i * dtype_bytes(segment->src_dtype),
                                      segment->src_dtype);
        float w = f32_from_bits(bits);

        for (unsigned d = 0; d < segment->delta_count; d++)
            w = fold_element(w, &segment->deltas[d], row, col);
        if (segment->delta_count)
            bits = f32_bits(w);
        if (!store_f32_bits(dst + i * dtype_bytes(segment->dst_dtype), segment->dst_dtype, bits) &&
            first == FOLD_FINITE)
            first = i;
    }
    return first;
}

static void decode(float *dst, const void *src, enum dtype src_dtype, size_t count)
{
    const unsigned char *bytes = src;

    for (size_t i = 0; i < count; i++) {
        uint32_t bits = load_f32_bits(bytes + i * dtype_bytes(src_dtype), src_dtype);

        memcpy(dst + i, &bits, sizeof(bits));
    }
}

static size_t encode(void *dst, enum dtype dst_dtype, const float *src, size_t count)
{
    unsigned char *bytes = dst;
    size_t first = FOLD_FINITE;

    for (size_t i = 0; i < count; i++) {
        if (!store_f32_bits(bytes + i * dtype_bytes(dst_dtype), dst_dtype, f32_bits(src[i])) &&
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
        w[i] = f32_canonical(scaled_sum(w[i], scale, sum[i]));
}

/* The product of two fp32 numbers is exact in double. */
static double add_square(double sum, float x)
{
    return f64_canonical(sum + (double)x * (double)x);
}

static void add_squares(double lanes[FOLD_LANES], const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        lanes[i % FOLD_LANES] = add_square(lanes[i % FOLD_LANES], x[i]);
}

static void add_squares_each(double *sums, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sums[i] = add_square(sums[i], x[i]);
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

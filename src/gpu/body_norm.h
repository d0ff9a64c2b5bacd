/*
 * body_norm.h - norms of rows, and products with factors of rows and columns
 *
 * A row's squares are summed in FOLD_LANES lanes, which are the threads of a warp: neighbouring
 * threads read neighbouring elements, and each adds its own in order.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_BODY_NORM_H
#define GPU_BODY_NORM_H

#include "gpu/body.h"

#define NORM_ROWS (GPU_THREADS / FOLD_LANES) /* of a block */

struct norm_shared {
    double sums[NORM_ROWS][FOLD_LANES];
};

/* x[lane], x[lane + FOLD_LANES], ...; loads of several are on their way at once. */
COMPUTE_SHARED double norm_lane(const float *x, uint64_t cols, unsigned lane)
{
    double sum = 0.0;

    GPU_UNROLL_BY_8
    for (uint64_t col = lane; col < cols; col += FOLD_LANES)
        sum = f64_add_square(sum, x[col]);
    return f64_canonical(sum);
}

/* A warp for a row: its norm as fold_norm() has it, then the row of w times the factor. */
COMPUTE_SHARED void norm_dora_block(const struct device_dora_rows *task, struct norm_shared *shared,
                                    uint64_t block)
{
    GPU_PHASE(thread, GPU_THREADS)
    {
        const uint64_t row = block * NORM_ROWS + thread / FOLD_LANES;

        if (row < task->rows)
            shared->sums[thread / FOLD_LANES][thread % FOLD_LANES] = norm_lane(
                task->alone + row * task->cols, task->cols, thread % FOLD_LANES);
    }
    for (unsigned half = FOLD_LANES / 2; half; half /= 2) {
        GPU_PHASE(thread, GPU_THREADS)
        {
            double *sums = shared->sums[thread / FOLD_LANES];
            const unsigned lane = thread % FOLD_LANES;

            if (block * NORM_ROWS + thread / FOLD_LANES < task->rows && lane < half)
                sums[lane] = f64_add(sums[lane], sums[lane + half]);
        }
    }
    GPU_PHASE(thread, GPU_THREADS)
    {
        const uint64_t row = block * NORM_ROWS + thread / FOLD_LANES;
        float *w = task->w + row * task->cols;

        if (row < task->rows) {
            const float norm = element_root(shared->sums[thread / FOLD_LANES][0]);
            const float factor = element_dora_factor(task->magnitudes[row], norm);

            GPU_UNROLL_BY_4
            for (uint64_t col = thread % FOLD_LANES; col < task->cols; col += FOLD_LANES)
                w[col] = f32_canonical(f32_mul(factor, w[col]));
        }
    }
}

/* The rest is done to four neighbours at once, as one vector where they can be. */
#define NORM_FOUR 4u

COMPUTE_SHARED unsigned norm_fours(const float *x, uint64_t index, uint64_t count)
{
    return index + NORM_FOUR <= count && gpu_alignment((unsigned)(uintptr_t)(x + index)) == 16
               ? NORM_FOUR
               : 0;
}

COMPUTE_SHARED void norm_add_scaled(const struct device_add_scaled *task, uint64_t index)
{
    const unsigned left = gpu_lesser(task->count - index, NORM_FOUR);

    if (norm_fours(task->w, index, task->count) && norm_fours(task->sum, index, task->count)) {
        struct gpu_floats w = gpu_load_floats(task->w + index);
        const struct gpu_floats sum = gpu_load_floats(task->sum + index);

        GPU_UNROLL
        for (unsigned i = 0; i < NORM_FOUR; i++)
            w.lane[i] = f32_canonical(element_add_scaled(w.lane[i], task->scale, sum.lane[i]));
        gpu_store_floats(task->w + index, w);
        return;
    }
    for (unsigned i = 0; i < left; i++)
        task->w[index + i] = f32_canonical(
            element_add_scaled(task->w[index + i], task->scale, task->sum[index + i]));
}

COMPUTE_SHARED void norm_add_scaled_block(const struct device_add_scaled *task, uint64_t block)
{
    GPU_PHASE(thread, GPU_THREADS)
    {
        const uint64_t index = (block * GPU_THREADS + thread) * NORM_FOUR;

        if (index < task->count)
            norm_add_scaled(task, index);
    }
}

/* Four elements from `index` on, which may go on in the next row. */
COMPUTE_SHARED void norm_scale(const struct device_scale *task, bool by_rows, uint64_t index)
{
    const uint64_t count = task->rows * task->cols;
    const unsigned left = gpu_lesser(count - index, NORM_FOUR);
    uint64_t row = element_divide(index, task->cols);
    uint64_t col = index - row * task->cols;
    struct gpu_floats x;

    if (norm_fours(task->x, index, count)) {
        x = gpu_load_floats(task->x + index);
    } else {
        GPU_UNROLL
        for (unsigned i = 0; i < NORM_FOUR; i++)
            x.lane[i] = i < left ? task->x[index + i] : 0.0f;
    }
    GPU_UNROLL
    for (unsigned i = 0; i < NORM_FOUR; i++) {
        if (i < left)
            x.lane[i] = f32_canonical(f32_mul(task->factors[by_rows ? row : col], x.lane[i]));
        if (++col == task->cols) {
            col = 0;
            row++;
        }
    }
    if (norm_fours(task->x, index, count)) {
        gpu_store_floats(task->x + index, x);
        return;
    }
    GPU_UNROLL
    for (unsigned i = 0; i < NORM_FOUR; i++) {
        if (i < left)
            task->x[index + i] = x.lane[i];
    }
}

COMPUTE_SHARED void norm_scale_block(const struct device_scale *task, bool by_rows, uint64_t block)
{
    GPU_PHASE(thread, GPU_THREADS)
    {
        const uint64_t index = (block * GPU_THREADS + thread) * NORM_FOUR;

        if (index < task->rows * task->cols)
            norm_scale(task, by_rows, index);
    }
}

#endif

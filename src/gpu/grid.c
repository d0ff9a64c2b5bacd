/*
 * grid.c - what is worked out once for a task, by the host
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gpu/grid.h"

uint64_t grid_decode(struct quant_work *out, const struct device_decode *task)
{
    const struct quant_matrix *matrix = &task->matrix;
    const uint64_t elements = matrix->rows * matrix->cols;
    uint64_t first_row, last_row;

    *out = (struct quant_work){ .dst = task->dst,
                                .matrix = *matrix,
                                .grid = quant_grid_of(matrix),
                                .whole = task->whole,
                                .first = task->first,
                                .count = task->count };
    if (task->count == 0)
        return 0;
    quant_views_of(out->views, matrix, &task->source); /* adds to pointers, and reads nothing */
    memcpy(out->table, quant_tables[quant_table_of(matrix->codes)], sizeof(out->table));
    if (!matrix->transposed)
        return gpu_ceil(task->count, QUANT_EACH * GPU_THREADS);
    first_row = task->first % elements / matrix->cols;
    last_row = (task->first % elements + task->count - 1) / matrix->cols;
    out->row_first = first_row;
    out->rows = last_row - first_row + 1;
    out->squares_across = gpu_ceil(matrix->cols, QUANT_SIDE);
    return out->squares_across * gpu_ceil(out->rows, QUANT_SIDE);
}

uint64_t grid_encode(struct encode_work *out, enum encode_kind kind,
                     const struct device_blocks *task)
{
    *out = (struct encode_work){ .kind = kind, .task = *task, .team = 1 };
    memcpy(out->table, quant_tables[quant_table_of(task->codes)], sizeof(out->table));
    out->blocks = gpu_ceil(task->count, task->block);
    while (out->team < GPU_THREADS && out->team * GPU_EIGHT < task->block)
        out->team *= 2;
    return gpu_ceil(out->blocks, GPU_THREADS / out->team);
}

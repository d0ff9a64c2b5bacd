/*
 * kernels_host.c - carrying out a task on the host, block of threads by block of threads
 *
 * What the threads of a block share begins poisoned, so that what nobody has written shows.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gpu/grid.h"
#include "gpu/kernels.h"

#define SHARED_POISON 0xff /* NaN */

__thread unsigned gpu_host_order;

static void run_fold(const struct device_fold *fold, uint64_t *bad)
{
    const struct fold_segment *segment = &fold->segment;
    const uint64_t rows = segment->count ? grid_segment_rows(segment) : 0;
    const enum grid_fold kind = grid_fold_kind(segment, fold->deltas);
    const struct fold_rows_converted work = grid_convert_segment(segment);
    struct fold_grid grid;
    struct fold_shared shared;

    switch (kind) {
    case GRID_FOLD_NONE:
        return;
    case GRID_FOLD_CONVERT:
        for (uint64_t b = 0; b < grid_thread_blocks(work.eights); b++)
            fold_convert_block(&work, bad, b);
        return;
    case GRID_FOLD_ONE:
        grid = grid_tiles(rows, segment->cols, FOLD_ROWS_ONE, 1);
        break;
    case GRID_FOLD_MANY:
        grid = grid_tiles(rows, segment->cols, FOLD_ROWS_MANY, UINT32_MAX);
        break;
    }
    for (uint64_t b = 0; b < grid_tile_blocks(&grid); b++) {
        memset(&shared, SHARED_POISON, sizeof(shared));
        if (kind == GRID_FOLD_ONE)
            fold_one_block(fold, bad, &grid, &shared, b);
        else
            fold_many_block(fold, bad, &grid, &shared, b);
    }
}

static void run_convert(const struct device_convert *task, uint64_t *bad)
{
    const struct fold_rows_converted work = grid_convert(task);

    for (uint64_t b = 0; b < grid_thread_blocks(work.rows * work.eights); b++)
        fold_convert_block(&work, bad, b);
}

static void run_panel_sum(const struct device_panel_sum *task)
{
    const struct fold_grid grid = grid_tiles(task->rows, task->cols, FOLD_ROWS_ONE, UINT32_MAX);
    struct fold_shared shared;

    for (uint64_t b = 0; b < grid_tile_blocks(&grid); b++) {
        memset(&shared, SHARED_POISON, sizeof(shared));
        fold_panel_block(task, &grid, &shared, b);
    }
}

static void run_add_scaled(const struct device_add_scaled *task)
{
    for (uint64_t b = 0; b < grid_thread_blocks(gpu_ceil(task->count, NORM_FOUR)); b++)
        norm_add_scaled_block(task, b);
}

static void run_scale(const struct device_scale *task, bool by_rows)
{
    uint64_t blocks = grid_thread_blocks(gpu_ceil(task->rows * task->cols, NORM_FOUR));

    for (uint64_t b = 0; b < blocks; b++)
        norm_scale_block(task, by_rows, b);
}

static void run_dora_rows(const struct device_dora_rows *task)
{
    struct norm_shared shared;

    for (uint64_t b = 0; b < gpu_ceil(task->rows, NORM_ROWS); b++) {
        memset(&shared, SHARED_POISON, sizeof(shared));
        norm_dora_block(task, &shared, b);
    }
}

static void run_decode(const struct device_decode *task, uint64_t *bad)
{
    struct quant_work work;
    struct quant_shared shared;
    uint64_t blocks = grid_decode(&work, task);

    for (uint64_t b = 0; b < blocks; b++) {
        memset(&shared, SHARED_POISON, sizeof(shared));
        quant_block(&work, &shared, bad, b);
    }
}

static void run_blocks(const struct device_blocks *task, enum encode_kind kind, uint64_t *bad)
{
    struct encode_work work;
    struct encode_shared shared;
    uint64_t blocks = grid_encode(&work, kind, task);

    for (uint64_t b = 0; b < blocks; b++) {
        memset(&shared, SHARED_POISON, sizeof(shared));
        encode_block(&work, &shared, bad, b);
    }
}

static void run_scaled(const struct device_scaled *task, uint64_t *bad)
{
    for (uint64_t b = 0; b < grid_thread_blocks(gpu_ceil(task->count, GPU_EIGHT)); b++)
        encode_scaled_block(task, bad, b);
}

void kernels_run_on_host(const struct device_task *task)
{
    switch (task->op) {
    case DEVICE_FOLD:
        run_fold(&task->fold, task->bad);
        return;
    case DEVICE_CONVERT:
        run_convert(&task->convert, task->bad);
        return;
    case DEVICE_PANEL_SUM:
        run_panel_sum(&task->panel_sum);
        return;
    case DEVICE_ADD_SCALED:
        run_add_scaled(&task->add_scaled);
        return;
    case DEVICE_SCALE_ROWS:
    case DEVICE_SCALE_COLS:
        run_scale(&task->scale, task->op == DEVICE_SCALE_ROWS);
        return;
    case DEVICE_DORA_ROWS:
        run_dora_rows(&task->dora_rows);
        return;
    case DEVICE_DECODE:
        run_decode(&task->decode, task->bad);
        return;
    case DEVICE_BNB4:
        run_blocks(&task->blocks, ENCODE_BNB4, task->bad);
        return;
    case DEVICE_ROUND_TRIP:
        run_blocks(&task->blocks, ENCODE_ROUND_TRIP, task->bad);
        return;
    case DEVICE_SCALED:
        run_scaled(&task->scaled, task->bad);
        return;
    case DEVICE_OP_COUNT:
        return;
    }
}

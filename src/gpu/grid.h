/*
 * grid.h - how tasks are cut into blocks of threads, on the host and for launches
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_GRID_H
#define GPU_GRID_H

#include "gpu/body_encode.h"
#include "gpu/body_fold.h"
#include "gpu/body_norm.h"
#include "gpu/body_quant.h"

/* Which kernel carries out a fold. */
enum grid_fold { GRID_FOLD_NONE, GRID_FOLD_ONE, GRID_FOLD_MANY, GRID_FOLD_CONVERT };

static inline enum grid_fold grid_fold_kind(const struct fold_segment *segment,
                                            const struct fold_delta *deltas)
{
    if (segment->count == 0)
        return GRID_FOLD_NONE;
    if (segment->delta_count == 0)
        return GRID_FOLD_CONVERT;
    if (segment->delta_count == 1 && deltas[0].rank <= FOLD_PANEL)
        return GRID_FOLD_ONE;
    return GRID_FOLD_MANY;
}

/*
 * Blocks take up to four tiles, so that what they share is read less often, but not so many that
 * there are fewer than four blocks for each that the device runs at once: the last ones would leave
 * it idle.
 */
static inline struct fold_grid grid_tiles(uint64_t rows, uint64_t cols, unsigned thread_rows,
                                          uint64_t blocks_at_once)
{
    struct fold_grid grid;
    uint64_t room;

    grid.tiles_across = gpu_ceil(cols, FOLD_TILE_COLS);
    grid.tiles_down = gpu_ceil(rows, FOLD_THREAD_ROWS * thread_rows);
    room = grid.tiles_across * grid.tiles_down / (4 * blocks_at_once);
    grid.tiles = room == 0 ? 1 : gpu_lesser(room, 4);
    return grid;
}

static inline uint64_t grid_tile_blocks(const struct fold_grid *grid)
{
    return grid->tiles_across * gpu_ceil(grid->tiles_down, grid->tiles);
}

static inline uint64_t grid_segment_rows(const struct fold_segment *segment)
{
    return gpu_ceil(segment->first_col + segment->count, segment->cols);
}

static inline struct fold_rows_converted grid_convert(const struct device_convert *task)
{
    struct fold_rows_converted work;
    bool dense = task->src_stride == task->cols && task->dst_stride == task->cols;

    memset(&work, 0, sizeof(work));
    work.rows = dense ? 1 : task->rows;
    work.src_stride = task->src_stride;
    work.dst_stride = task->dst_stride;
    work.row.src = task->src;
    work.row.dst = task->dst;
    work.row.src_dtype = task->src_dtype;
    work.row.dst_dtype = task->dst_dtype;
    work.row.cols = work.row.count = dense ? task->rows * task->cols : task->cols;
    work.eights = gpu_ceil(work.row.count, GPU_EIGHT);
    return work;
}

/* A fold without deltas. */
static inline struct fold_rows_converted grid_convert_segment(const struct fold_segment *segment)
{
    struct device_convert task;

    memset(&task, 0, sizeof(task));
    task.src = segment->src;
    task.dst = segment->dst;
    task.src_dtype = segment->src_dtype;
    task.dst_dtype = segment->dst_dtype;
    task.rows = 1;
    task.cols = task.src_stride = task.dst_stride = segment->count;
    return grid_convert(&task);
}

#ifdef __cplusplus
extern "C" {
#endif

/* Work that the kernels take instead of a task, and how many blocks there are. */
uint64_t grid_decode(struct quant_work *out, const struct device_decode *task);
uint64_t grid_encode(struct encode_work *out, enum encode_kind kind,
                     const struct device_blocks *task);

#ifdef __cplusplus
}
#endif

static inline uint64_t grid_thread_blocks(uint64_t threads)
{
    return gpu_ceil(threads, GPU_THREADS);
}

#endif

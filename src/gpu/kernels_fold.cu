/*
 * kernels_fold.cu - fold, conversion and sums of panels
 *
 * The second number of __launch_bounds__ is how many blocks a processor holds at once: with 128
 * threads, 3 leave a thread 168 registers and 4 leave it 128.  The folds need 64 sums, or 96
 * numbers, in registers, so 3; the others fit into less.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gpu/launch.h"

#define FOLD_BLOCKS 3

static __global__ void __launch_bounds__(GPU_THREADS, FOLD_BLOCKS)
    fold_one_kernel(const __grid_constant__ struct device_fold fold, uint64_t *bad,
                    const struct fold_grid grid)
{
    __shared__ struct fold_shared shared;

    fold_one_block(&fold, bad, &grid, &shared, blockIdx.x);
}

static __global__ void __launch_bounds__(GPU_THREADS, FOLD_BLOCKS)
    fold_many_kernel(const __grid_constant__ struct device_fold fold, uint64_t *bad,
                     const struct fold_grid grid)
{
    __shared__ struct fold_shared shared;

    fold_many_block(&fold, bad, &grid, &shared, blockIdx.x);
}

static __global__ void __launch_bounds__(GPU_THREADS, 4)
    fold_panel_kernel(const __grid_constant__ struct device_panel_sum task,
                      const struct fold_grid grid)
{
    __shared__ struct fold_shared shared;

    fold_panel_block(&task, &grid, &shared, blockIdx.x);
}

static __global__ void __launch_bounds__(GPU_THREADS)
    fold_convert_kernel(const __grid_constant__ struct fold_rows_converted work, uint64_t *bad)
{
    fold_convert_block(&work, bad, blockIdx.x);
}

/* Blocks of the fold that the device runs at once. */
static uint64_t blocks_at_once(void)
{
    int device, processors;

    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) !=
            cudaSuccess) {
        (void)cudaGetLastError(); /* it is slower then, and no error */
        return 1;
    }
    return (uint64_t)processors * FOLD_BLOCKS;
}

static void fold(const struct device_fold *task, uint64_t *bad, cudaStream_t stream)
{
    const struct fold_segment *segment = &task->segment;
    struct fold_grid grid;
    struct fold_rows_converted work;

    switch (grid_fold_kind(segment, task->deltas)) {
    case GRID_FOLD_NONE:
        return;
    case GRID_FOLD_CONVERT:
        work = grid_convert_segment(segment);
        LAUNCH(fold_convert_kernel, grid_thread_blocks(work.eights), stream, work, bad);
        return;
    case GRID_FOLD_ONE:
        grid = grid_tiles(grid_segment_rows(segment), segment->cols, FOLD_ROWS_ONE,
                          blocks_at_once());
        LAUNCH(fold_one_kernel, grid_tile_blocks(&grid), stream, *task, bad, grid);
        return;
    case GRID_FOLD_MANY:
        grid = grid_tiles(grid_segment_rows(segment), segment->cols, FOLD_ROWS_MANY, UINT32_MAX);
        LAUNCH(fold_many_kernel, grid_tile_blocks(&grid), stream, *task, bad, grid);
        return;
    }
}

cudaError_t launch_fold(const struct device_task *task, cudaStream_t stream)
{
    const struct device_panel_sum *sum = &task->panel_sum;
    struct fold_rows_converted work;
    struct fold_grid grid;

    if (task->op == DEVICE_FOLD) {
        fold(&task->fold, task->bad, stream);
    } else if (task->op == DEVICE_CONVERT) {
        work = grid_convert(&task->convert);
        LAUNCH(fold_convert_kernel, grid_thread_blocks(work.rows * work.eights), stream, work,
               task->bad);
    } else {
        grid = grid_tiles(sum->rows, sum->cols, FOLD_ROWS_ONE, UINT32_MAX);
        LAUNCH(fold_panel_kernel, grid_tile_blocks(&grid), stream, *sum, grid);
    }
    return cudaGetLastError();
}

cudaError_t load_fold(void)
{
    const void *const kernels[] = { (const void *)fold_one_kernel, (const void *)fold_many_kernel,
                                    (const void *)fold_panel_kernel,
                                    (const void *)fold_convert_kernel };
    cudaError_t failed = cudaSuccess;

    for (const void *kernel : kernels) {
        if (failed == cudaSuccess)
            failed = launch_load(kernel);
    }
    return failed;
}

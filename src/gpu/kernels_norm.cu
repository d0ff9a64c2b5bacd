/*
 * kernels_norm.cu - norms of rows, and products with factors of rows and columns
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gpu/launch.h"

static __global__ void __launch_bounds__(GPU_THREADS)
    norm_dora_kernel(const __grid_constant__ struct device_dora_rows task)
{
    __shared__ struct norm_shared shared;

    norm_dora_block(&task, &shared, blockIdx.x);
}

static __global__ void __launch_bounds__(GPU_THREADS)
    norm_add_scaled_kernel(const __grid_constant__ struct device_add_scaled task)
{
    norm_add_scaled_block(&task, blockIdx.x);
}

static __global__ void __launch_bounds__(GPU_THREADS)
    norm_scale_kernel(const __grid_constant__ struct device_scale task, bool by_rows)
{
    norm_scale_block(&task, by_rows, blockIdx.x);
}

cudaError_t launch_norm(const struct device_task *task, cudaStream_t stream)
{
    const struct device_scale *scale = &task->scale;

    if (task->op == DEVICE_DORA_ROWS)
        LAUNCH(norm_dora_kernel, gpu_ceil(task->dora_rows.rows, NORM_ROWS), stream,
               task->dora_rows);
    else if (task->op == DEVICE_ADD_SCALED)
        LAUNCH(norm_add_scaled_kernel,
               grid_thread_blocks(gpu_ceil(task->add_scaled.count, NORM_FOUR)), stream,
               task->add_scaled);
    else
        LAUNCH(norm_scale_kernel,
               grid_thread_blocks(gpu_ceil(scale->rows * scale->cols, NORM_FOUR)), stream, *scale,
               task->op == DEVICE_SCALE_ROWS);
    return cudaGetLastError();
}

cudaError_t load_norm(void)
{
    const void *const kernels[] = { (const void *)norm_dora_kernel,
                                    (const void *)norm_add_scaled_kernel,
                                    (const void *)norm_scale_kernel };
    cudaError_t failed = cudaSuccess;

    for (const void *kernel : kernels) {
        if (failed == cudaSuccess)
            failed = launch_load(kernel);
    }
    return failed;
}

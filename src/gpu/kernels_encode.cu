/*
 * kernels_encode.cu - fp32 to codes
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gpu/launch.h"

static __global__ void __launch_bounds__(GPU_THREADS)
    encode_kernel(const __grid_constant__ struct encode_work work, uint64_t *bad)
{
    __shared__ struct encode_shared shared;

    encode_block(&work, &shared, bad, blockIdx.x);
}

static __global__ void __launch_bounds__(GPU_THREADS)
    encode_scaled_kernel(const __grid_constant__ struct device_scaled task, uint64_t *bad)
{
    encode_scaled_block(&task, bad, blockIdx.x);
}

cudaError_t launch_encode(const struct device_task *task, cudaStream_t stream)
{
    const enum encode_kind kind = task->op == DEVICE_BNB4 ? ENCODE_BNB4 : ENCODE_ROUND_TRIP;
    struct encode_work work;
    uint64_t blocks;

    if (task->op == DEVICE_SCALED) {
        blocks = grid_thread_blocks(gpu_ceil(task->scaled.count, GPU_EIGHT));
        LAUNCH(encode_scaled_kernel, blocks, stream, task->scaled, task->bad);
    } else {
        blocks = grid_encode(&work, kind, &task->blocks);
        LAUNCH(encode_kernel, blocks, stream, work, task->bad);
    }
    return cudaGetLastError();
}

cudaError_t load_encode(void)
{
    cudaError_t failed = launch_load((const void *)encode_kernel);

    return failed == cudaSuccess ? launch_load((const void *)encode_scaled_kernel) : failed;
}

/*
 * kernels_quant.cu - quantised elements, decoded
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gpu/launch.h"

static __global__ void __launch_bounds__(GPU_THREADS)
    quant_kernel(const __grid_constant__ struct quant_work work, uint64_t *bad)
{
    __shared__ struct quant_shared shared;

    quant_block(&work, &shared, bad, blockIdx.x);
}

cudaError_t launch_quant(const struct device_task *task, cudaStream_t stream)
{
    struct quant_work work;
    uint64_t blocks = grid_decode(&work, &task->decode);

    LAUNCH(quant_kernel, blocks, stream, work, task->bad);
    return cudaGetLastError();
}

cudaError_t load_quant(void)
{
    return launch_load((const void *)quant_kernel);
}

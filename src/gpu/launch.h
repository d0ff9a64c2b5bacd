/*
 * launch.h - what the files of kernels share: one launch for each group of tasks
 *
 * Each returns what cudaGetLastError() says, and each load_*() has the kernels of its file loaded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_LAUNCH_H
#define GPU_LAUNCH_H

#include "gpu/grid.h"
#include "gpu/kernels.h"

#include <cuda_runtime.h>

/* A kernel, one block of GPU_THREADS threads for each block of the task; none for no block. */
#define LAUNCH(kernel, blocks, stream, ...)                                                        \
    do {                                                                                           \
        if ((blocks) > 0)                                                                          \
            (kernel)<<<(unsigned)(blocks), GPU_THREADS, 0, (stream)>>>(__VA_ARGS__);               \
    } while (0)

/* Asking for a kernel's attributes loads it. */
static inline cudaError_t launch_load(const void *kernel)
{
    struct cudaFuncAttributes attributes;

    return cudaFuncGetAttributes(&attributes, kernel);
}

cudaError_t launch_fold(const struct device_task *task, cudaStream_t stream);
cudaError_t launch_norm(const struct device_task *task, cudaStream_t stream);
cudaError_t launch_quant(const struct device_task *task, cudaStream_t stream);
cudaError_t launch_encode(const struct device_task *task, cudaStream_t stream);

cudaError_t load_fold(void);
cudaError_t load_norm(void);
cudaError_t load_quant(void);
cudaError_t load_encode(void);

#endif

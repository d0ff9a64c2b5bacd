/*
 * kernels.h - carrying out a task: one body for each operation, two ways to run it
 *
 * The bodies are __host__ __device__ functions in src/gpu/body_*.h: the work of a block of threads,
 * in phases between barriers (gpu/body.h).  kernels_host.c runs them block by block and thread by
 * thread on the host (the simulated device, and tests against the scalar tables); kernels_*.cu
 * launch them.  Both give the bits of the scalar tables (compute/device_task.h).
 *
 * Arithmetic is that of compute/rounded.h, one IEEE 754 operation at a time; what an element means
 * is said in headers that the scalar tables are made of too (compute/element.h, quant_element.h,
 * encode_element.h).  No fast-math, no flush to zero; 64-bit indices.
 *
 * A task is valid: whoever makes one has checked it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_KERNELS_H
#define GPU_KERNELS_H

#include "compute/device_task.h"

#ifdef __cplusplus
extern "C" {
#endif

/* On the calling thread; its floating-point environment is the default one. */
void kernels_run_on_host(const struct device_task *task);

#ifdef LORAFOLD_CUDA
/*
 * Put the kernels of a task into a stream (a cudaStream_t).  Returns a cudaError_t, 0 for success.
 * Does not allocate, wait, or use the default stream.
 */
int kernels_launch(const struct device_task *task, void *stream);

/*
 * Load all kernels now, so that none is loaded while the work runs (lazy loading allocates); the
 * device is the current one.  Returns a cudaError_t.
 */
int kernels_load(void);
#endif

#ifdef __cplusplus
}
#endif

#endif

/*
 * gpu.h - the devices there are
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_GPU_H
#define GPU_GPU_H

#include "compute/device.h"

/*
 * The simulated device: memory of its own, filled with what spoils a result, and a thread for each
 * stream.  Number 0: a stream moves only when it is waited for, or full, so that whoever forgets to
 * wait finds nothing done.  Another number: every step is delayed as that seed says.
 */
extern const struct device_ops gpu_sim;

/* CUDA; where the program was built without it, open() says so with ERR_USAGE. */
extern const struct device_ops gpu_cuda;

/*
 * How many CUDA devices there are.  0: `reason` says why there is none, in words that go behind
 * "cuda is not used: ".  Never fails, starts nothing on a device.
 */
unsigned gpu_cuda_count(char *reason, size_t reason_bytes);

#endif

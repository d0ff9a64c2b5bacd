/*
 * kernels.cu - the launch of a task
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "gpu/launch.h"

int kernels_launch(const struct device_task *task, void *stream)
{
    const cudaStream_t to = static_cast<cudaStream_t>(stream);

    switch (task->op) {
    case DEVICE_FOLD:
    case DEVICE_CONVERT:
    case DEVICE_PANEL_SUM:
        return launch_fold(task, to);
    case DEVICE_ADD_SCALED:
    case DEVICE_SCALE_ROWS:
    case DEVICE_SCALE_COLS:
    case DEVICE_DORA_ROWS:
        return launch_norm(task, to);
    case DEVICE_DECODE:
        return launch_quant(task, to);
    case DEVICE_BNB4:
    case DEVICE_ROUND_TRIP:
    case DEVICE_SCALED:
        return launch_encode(task, to);
    case DEVICE_OP_COUNT:
        break;
    }
    return cudaErrorInvalidValue;
}

int kernels_load(void)
{
    cudaError_t (*const loads[])(void) = { load_fold, load_norm, load_quant, load_encode };
    cudaError_t failed = cudaSuccess;

    for (cudaError_t (*load)(void) : loads) {
        if (failed == cudaSuccess)
            failed = load();
    }
    return failed;
}

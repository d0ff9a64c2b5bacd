/*
 * gpu_run.h - a task whose memory is that of a test, carried out wherever LORAFOLD_TEST_DEVICE says
 *
 *     host (or not set)   the kernels' bodies on the host, in the memory of the test; threads of a
 *                         block run in another order at each call
 *     sim, cuda           a device: inputs are copied to it, results back
 *
 * On a device results lie between bytes that must not change, at the alignment that they have in
 * the test.  Where there is no such device the program says so and exits with status 77.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_KERNEL_GPU_RUN_H
#define TESTS_KERNEL_GPU_RUN_H

#include "compute/device_task.h"

#define GPU_CALL_PIECES 160u /* of a fold with many deltas */

/* Memory that a task reads or writes. */
struct gpu_piece {
    void *host;
    size_t bytes;
    bool written;
    size_t offset; /* in the memory of a device */
};

/* A pointer in the task, and the piece that it is to. */
struct gpu_pointer {
    void **place;
    unsigned piece;
};

struct gpu_call {
    struct device_task task;
    uint64_t bad; /* what the task found; set by gpu_call_run() */
    struct gpu_piece pieces[GPU_CALL_PIECES];
    struct gpu_pointer pointers[GPU_CALL_PIECES];
    unsigned piece_count;
    unsigned pointer_count;
};

/* The pointer at `place` in the call's task is to these bytes; both: they are read and written. */
void gpu_call_in(struct gpu_call *call, void *place, const void *host, size_t bytes);
void gpu_call_both(struct gpu_call *call, void *place, void *host, size_t bytes);
/* The pointer is to a piece that the call has already. */
void gpu_call_same(struct gpu_call *call, void *place, const void *host);

/* Carry it out and wait. */
void gpu_call_run(struct gpu_call *call);

#endif

/*
 * device.h - what computes beside the processor, as a table: CUDA, or a simulation of it
 *
 * A device has memory of its own and streams.  Transfers and tasks are put into a stream, which
 * carries them out in order and later; streams know nothing of each other.  device_wait() is the
 * only call that waits.  So until then the host's side of a transfer must neither be read (of a
 * download) nor written, and the memory of a device is never looked at by the host.
 *
 * Threads: open and close are called by one thread; take, pin and stream while no
 * other thread uses the device.
 * Each stream is used by one thread at a time, different streams by different threads at once.
 *
 * Errors: ERR_FAILED with a sentence that names the device and the call.  After one a device may
 * be lost: every later call fails, none hangs, and close still frees what can be freed.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_DEVICE_H
#define COMPUTE_DEVICE_H

#include "base/error.h"
#include "compute/device_task.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;        /* each table's own */
struct device_stream; /* likewise */

struct device_info {
    char name[128];        /* "cuda:0", "sim" */
    char description[128]; /* "NVIDIA GeForce RTX 4090, compute 8.9, driver 12.4", or "" */
    uint64_t memory_bytes;
    uint64_t free_bytes; /* when it was opened */
    double link_rate;    /* bytes per second that go there at most; 0: unknown */
    double memory_rate;  /* bytes per second of its memory by its data sheet; 0: unknown */
};

struct device_ops {
    const char *name; /* "cuda", "sim" */

    /* `number`: which one of several; of the simulation, the seed of its delays. */
    int (*open)(struct device **out, unsigned number, struct error *err);
    void (*close)(struct device *device); /* NULL is allowed; frees all below */
    void (*describe)(const struct device *device, struct device_info *out);

    /* Memory on the device, 256-byte aligned, with whatever is in it. */
    int (*take)(struct device *device, void **memory, size_t bytes, struct error *err);
    /* Memory of the host that transfers are fastest with, of whole pages; close frees it. */
    int (*take_pinned)(struct device *device, void **host, size_t bytes, struct error *err);
    /*
     * Make whole pages of the host as fit for transfers as those.  Where that cannot be done they
     * work all the same, slower and while the host waits: then this returns false.  Pages are
     * unpinned before they are given back.
     */
    bool (*pin)(struct device *device, void *host, size_t bytes);
    void (*unpin)(struct device *device, void *host);
    int (*stream)(struct device *device, struct device_stream **out, struct error *err);

    int (*upload)(struct device_stream *stream, void *memory, const void *host, size_t bytes,
                  struct error *err);
    int (*download)(struct device_stream *stream, void *host, const void *memory, size_t bytes,
                    struct error *err);
    /* All pointers in the task are to memory of the device; the task itself is copied. */
    int (*run)(struct device_stream *stream, const struct device_task *task, struct error *err);

    /*
     * Remember that the stream has come so far: marks 0 .. DEVICE_MARKS - 1 of it.  wait() returns
     * when the stream has come to the newest mark of this number.  seconds() is the time between
     * two marks that have been waited for.
     */
    int (*mark)(struct device_stream *stream, unsigned mark, struct error *err);
    int (*wait)(struct device_stream *stream, unsigned mark, struct error *err);
    double (*seconds)(struct device_stream *stream, unsigned from, unsigned to);
};

#define DEVICE_MARKS 256u

#endif

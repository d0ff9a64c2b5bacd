/*
 * ring_ops.h - what a back-end of the ring provides, and what all of them share
 *
 * For ring*.c and their test only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef IO_RING_OPS_H
#define IO_RING_OPS_H

#include "io/ring.h"

#include <stdatomic.h>
#include <stdbool.h>

/* Every member is required. */
struct ring_ops {
    const char *name;
    void (*submit)(struct ring *ring, struct ring_request *request);
    int (*wait)(struct ring *ring, struct ring_request **done, struct error *err);
    void (*close)(struct ring *ring); /* frees the ring, but not what ring_base_release() does */
};

/* Back-ends put this first in their own struct. */
struct ring {
    const struct ring_ops *ops;
    int wake_fd;       /* eventfd, blocking; ring_wake() writes it */
    atomic_bool woken; /* set before wake_fd is written: orders what the waker did before */
    unsigned depth;
    unsigned in_flight;
    struct ring_request *trivial; /* finished without a transfer, not yet reported */
    char reason[128];             /* why this is not io_uring */
};

/* The eventfd and the rest of struct ring; the back-end's open function calls it first. */
int ring_base_init(struct ring *ring, const struct ring_ops *ops, unsigned depth,
                   struct error *err);
void ring_base_release(struct ring *ring);

/* ERR_FAILED "io_uring is not available: REASON" where the kernel or a sandbox refuses it. */
int ring_uring_open(struct ring **out, unsigned depth, struct error *err);
int ring_threads_open(struct ring **out, unsigned depth, struct error *err);

/* What is to be transferred next. */
struct ring_range {
    uint8_t *memory;
    size_t bytes;
    uint64_t offset;
};
struct ring_range ring_request_rest(const struct ring_request *request);

/*
 * Take account of a transfer of ring_request_rest() that gave `result`: bytes, or a negative errno
 * value.  True: the request is finished and has its status.  False: the rest is to be tried.
 */
bool ring_request_advance(struct ring_request *request, int64_t result);

#endif

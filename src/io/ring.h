/*
 * ring.h - many transfers in flight, finished one at a time
 *
 * One thread, the owner, opens the ring, submits requests, waits for them and
 * closes the ring; only ring_wake() may be called from other threads (and from
 * signal handlers).  Behind it is
 * io_uring, or, where the kernel or a sandbox refuses that (seccomp, sysctl, old
 * kernel, MEMLOCK), threads with pread and pwrite.  Which one is found by probing.
 *
 * Calling sequence:
 *
 *     ring_open(&ring, RING_AUTO, depth, &err)
 *     fill a struct ring_request that stays where it is; ring_submit(ring, &request)
 *     while (ring_wait(ring, &done, &err) == 0) ...done is a finished request, or NULL: woken
 *     ring_close(ring)          only when nothing is in flight
 *
 * A request is whole or failed: short transfers, EINTR and EAGAIN are taken care
 * of, also where the rest of a short direct transfer is not page-aligned.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef IO_RING_H
#define IO_RING_H

#include "base/error.h"
#include "io/file.h"

#include <stddef.h>
#include <stdint.h>

struct ring;

enum ring_kind { RING_AUTO, RING_URING, RING_THREADS };

enum ring_operation { RING_READ, RING_WRITE, RING_SYNC };

struct ring_request {
    enum ring_operation operation;
    const struct file *file; /* stays open until the request is finished */
    void *memory;            /* page-aligned if file->direct */
    size_t bytes;            /* asked for; a multiple of PAGE_BYTES if file->direct */
    size_t bytes_needed;     /* reads: fewer is an error, the end of the file may lie behind them */
    uint64_t offset;         /* in the file */
    void *user;              /* the owner's */
    int status; /* when finished: 0 or an errno value; ENODATA: the file was too short */

    /* For the ring only. */
    size_t done;
    struct ring_request *next;
};

/*
 * Up to `depth` (1..4096) requests may be in flight.  RING_AUTO probes io_uring and falls back;
 * RING_URING fails where it is refused.
 */
int ring_open(struct ring **out, enum ring_kind kind, unsigned depth, struct error *err);

/* "io_uring" or "threads"; and why io_uring is not used, or "" (for -v). */
const char *ring_name(const struct ring *ring);
const char *ring_reason(const struct ring *ring);

/* Start a transfer.  It may be finished at once but is always reported by ring_wait(). */
void ring_submit(struct ring *ring, struct ring_request *request);

/*
 * Wait for the next finished request, or for ring_wake(): then *done is NULL.  Several wakes may
 * be reported as one.  ERR_FAILED only if the ring itself is broken.
 */
int ring_wait(struct ring *ring, struct ring_request **done, struct error *err);

/* Make ring_wait() return; any thread, and async-signal-safe. */
void ring_wake(struct ring *ring);

/* Nothing may be in flight.  NULL is allowed. */
void ring_close(struct ring *ring);

#endif

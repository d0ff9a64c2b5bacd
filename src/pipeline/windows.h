/*
 * windows.h - the base, read once for several outputs
 *
 * A window is WINDOW_BYTES of a shard at a multiple of that.  A block takes the windows
 * that its reads lie in; one that is not there is loaded, in the place of the one that
 * nobody has taken for longest.  Outputs go through the base together, so windows of a
 * small number are enough for each byte to be read once; where an output lags behind or
 * goes its own way, a window is loaded again.  A worker copies from the windows into its
 * slot, and they are given back when the block is computed.
 *
 * Threads: the control thread; workers only read the bytes of windows that their slot has.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PIPELINE_WINDOWS_H
#define PIPELINE_WINDOWS_H

#include "base/error.h"
#include "io/file.h"
#include "io/ring.h"
#include "plan/plan.h"

#include <stdbool.h>
#include <stdint.h>

struct job;
struct slot;

struct window {
    uint8_t *memory;
    struct ring_request request; /* its file is closed if the window is empty */
    struct window_shard *shard;
    uint64_t number; /* in its shard */
    unsigned users;  /* slots that have it */
    bool loaded;
};

/* A shard; open while windows are of it. */
struct window_shard {
    struct file file;
    const char *path;
    uint64_t bytes;
    unsigned windows;
};

struct windows {
    struct window *list;
    unsigned count;
    unsigned next; /* where the search for one to load begins */
    struct window_shard *shards;
    uint32_t shard_count;
    enum file_direct direct;
};

/*
 * `memory` is for `count` windows.  The shards are the first inputs of `plan`, which outlives this.
 * windows_close() is for any windows, also all-zero ones; nothing may be in flight.
 */
int windows_open(struct windows *windows, uint8_t *memory, unsigned count, const struct plan *plan,
                 enum file_direct direct, struct error *err);
void windows_close(struct windows *windows);

enum windows_answer {
    WINDOWS_TAKEN,
    WINDOWS_BUSY,   /* others have them: ask again when a block is computed */
    WINDOWS_TOO_FEW /* a block like this is read without them */
};

/*
 * Take what the reads of the slot's block need, and fill in the slot's pieces.  Then each
 * window of the slot that is not `loaded` and has no file in its request is to be opened with
 * windows_load() and submitted.
 */
enum windows_answer windows_take(struct windows *windows, struct slot *slot);

/* Fill in the request of a window that was taken and has none; ERR_FAILED if its shard is gone. */
int windows_load(struct windows *windows, struct window *window, struct error *err);

void windows_give_back(struct slot *slot);

/* The window that a request is of, or NULL. */
struct window *windows_find(const struct windows *windows, const struct ring_request *request);

/* Does a slot have this window? */
bool windows_has(const struct slot *slot, const struct window *window);

/* Does a read of a job go through windows? */
bool windows_serve(const struct job *job, const struct plan_read *read);

#endif

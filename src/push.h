/*
 * push.h - files go to the Hub while others are made, and one commit ends it
 *
 *     push_open(&push, &destination, &remote, &err)     the Hub may say no, before any work
 *     push_begin(push, directory_fd, final_fd, ...)     from now on a thread sends
 *     push_add(push, &file, &err)                       for each file, when it is complete
 *     push_end(push, &remote, &report, &err)            waits, shows progress, commits
 *     push_close(push)                                  gives up what is under way, if not ended
 *
 * Before a file is sent it is read again and compared with the digests of what was to be written:
 * nothing is committed unless all files are what they should be.
 *
 * The helper gets files as /proc/PID/fd/N, so that neither a rename of their directory nor their
 * removal can come between.
 *
 * Threads: one calls; a thread of its own talks to the helper.  What it has to say waits for
 * push_tell(), so that the log is used by the caller's thread alone.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PUSH_H
#define PUSH_H

#include "base/error.h"
#include "lorafold.h"
#include "remote.h"

#include <stdint.h>

struct digest;
struct push;

struct push_file {
    const char *name; /* in the directory and in the repository; outlives the push */
    uint64_t bytes;
    const struct digest *blocks; /* of 4 MiB each, which outlive the push; all zero, and NULL: not
                                    known */
    bool may_differ;             /* from the blocks, with a notice */
    bool moves;                  /* its directory may be renamed or emptied before it is stored */
    bool leaves;                 /* it is removed once it is stored */
};

/* ERR_USAGE: the destination cannot be as given, or nothing may be asked of the Hub. */
int push_check_destination(const struct lorafold_destination *to, const struct lorafold_hub *hub,
                           struct error *err);

/*
 * Start the helper, and have it make the repository or see that it can be written.  `is_adapter`:
 * what is pushed is an adapter and not a model.  ERR_USAGE: the destination cannot be as given, or
 * holds the other of the two; offline, no helper.
 */
int push_open(struct push **out, const struct lorafold_destination *to, bool is_adapter,
              struct remote *remote, struct error *err);

/*
 * Start the thread.  Files are looked for in `directory_fd`, and where they are no more there, in
 * `final_fd` (or -1).  `wake` (may be NULL) is called by the thread when a file has left, and when
 * the push has failed.
 */
int push_begin(struct push *push, int directory_fd, int final_fd, void (*wake)(void *context),
               void *context, struct error *err);

/* Returns at once. */
int push_add(struct push *push, const struct push_file *file, struct error *err);

/* The size of a file in the directory. */
int push_size_of(const struct push *push, const char *name, uint64_t *bytes, struct error *err);

/* How many of the files that were to leave have left. */
uint32_t push_left(struct push *push);

/* It cannot succeed any more; push_end() says why. */
bool push_has_failed(struct push *push);

/* Say what there is to be said, by the log of the remote. */
void push_tell(struct push *push);

/* Wait until all files are stored, and commit.  ERR_CANCELLED as `remote` says. */
int push_end(struct push *push, struct remote *remote, struct lorafold_push_report *report,
             struct error *err);

void push_close(struct push *push); /* NULL is allowed */

/* "lorafold push DIRECTORY REPO ..." for the same destination, as a shell takes it. */
void push_add_command(struct text *out, const char *directory,
                      const struct lorafold_destination *to, const struct lorafold_hub *hub);

#endif

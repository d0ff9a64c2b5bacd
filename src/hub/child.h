/*
 * child.h - a program started with three channels: requests, answers, talk
 *
 * Requests go through a socket pair and not a pipe, because send() can be told
 * not to raise SIGPIPE and a library may not change the host's signals.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef HUB_CHILD_H
#define HUB_CHILD_H

#include "base/error.h"

#include <stddef.h>
#include <sys/types.h>

struct child {
    pid_t pid;
    int requests; /* our ends; non-blocking, closed on exec; -1 when closed */
    int answers;
    int talk;
};

/*
 * `arguments` ends with NULL and begins with the program: a path, or a name to look for on the
 * path. ERR_USAGE: it is not there or cannot be executed.  The child gets `environment` (as
 * environ), a process group of its own, so that the keyboard's interrupt reaches only us, and
 * default signals.
 */
int child_start(struct child *out, const char *const *arguments, char *const *environment,
                struct error *err);

/* How it ended ("exit status 3", "signal 9"), waiting at most patience_ms for that. */
void child_wait(struct child *child, int patience_ms, char *how, size_t how_bytes);

/* Close all channels, wait patience_ms for its end, then kill its process group.  Leaves no zombie.
 * Nothing happens if `child` is all zero. */
void child_end(struct child *child, int patience_ms);

#endif

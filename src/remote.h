/*
 * remote.h - the Hub as the library's calls use it
 *
 * A helper is started when something has to be asked, and ended by remote_close().
 * Waiting shows progress and can be cancelled.
 *
 * Threads: one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef REMOTE_H
#define REMOTE_H

#include "base/error.h"
#include "base/log.h"
#include "hub/cache.h"
#include "hub/helper.h"
#include "lorafold.h"

#include <stdatomic.h>

/* What of a repository is wanted. */
enum remote_need { REMOTE_WEIGHTS, REMOTE_TOKENIZER };

struct remote {
    const struct lorafold_hub *hub;
    const struct log *log;
    const volatile int *cancel; /* may be NULL, as may the next two */
    const atomic_int *stop;     /* the same */
    lorafold_progress_fn *progress;
    void *context;

    struct hub_helper *helper; /* NULL until it is needed */
    const char *shown;         /* what is being fetched */
    double started;
};

/*
 * The snapshot of org/name[@revision] in the cache, fetched if it is not there or not whole.  With
 * `remote` NULL nothing is fetched.  ERR_USAGE: it is not in the cache and may not be fetched, or
 * the helper is not installed.  On success the caller releases *out.
 */
int remote_find(struct hub_snapshot *out, struct remote *remote, const char *name,
                enum remote_need need, struct error *err);

/* Start the helper if it does not run. */
int remote_start(struct remote *remote, struct error *err);
void remote_close(struct remote *remote);

/* For requests on remote->helper: how to wait for their answers. */
struct hub_waiter remote_waiter(struct remote *remote);

#endif

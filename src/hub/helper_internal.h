/*
 * helper_internal.h - what the two halves of a conversation share: asking and answering
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef HUB_HELPER_INTERNAL_H
#define HUB_HELPER_INTERNAL_H

#include "hub/child.h"
#include "hub/helper.h"
#include "hub/lines.h"

#define HELPER_END_MS 1000 /* from the end of its input to its own */

struct hub_helper {
    struct child child;
    struct lines answers;
    struct lines talk;
    const struct log *log;
    uint64_t last_id;
    struct error broken; /* code 0 while it is of use */
    bool from_python;    /* it was started as a module, which may not be there */
    char program[QUOTED_BYTES];
    char last_words[QUOTED_BYTES]; /* the last line of its talk */
};

/* Start the one that is asked for, or the one that is found; helper->program names it. */
int helper_spawn(struct hub_helper *helper, const struct hub_helper_options *options,
                 struct error *err);

/*
 * hub_helper_ask(), but without a waiter's leave no longer than timeout_ms.  ERR_FAILED if that is
 * over.
 */
int helper_ask(struct hub_helper *helper, const char *verb, const char *members,
               const struct hub_waiter *waiter, int timeout_ms, struct cJSON **body,
               struct error *err);

/* The sentence for a helper that is not there. */
int helper_not_installed(const struct hub_helper *helper, struct error *err);

/* Of a clock that only goes forward. */
int64_t helper_now_ms(void);

/* The error that made the helper useless. */
int helper_broken(const struct hub_helper *helper, struct error *err);

#endif

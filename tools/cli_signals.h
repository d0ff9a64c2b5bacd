/*
 * cli_signals.h - SIGINT, SIGTERM and SIGHUP ask the work to stop
 *
 * Before the work begins there is nothing to clean up and a signal ends the
 * process at once.  From then on the handlers set a flag and cancel the merge
 * that runs, nothing else, and only a second SIGINT ends the process at once.
 * Planning may fetch, by a helper that has to be ended; it writes nothing, so
 * that a signal ends the process after some seconds if planning does not.
 * A signal that was ignored when the program started (nohup, background jobs of
 * scripts) stays ignored.  SIGPIPE is ignored: a reader of standard output that
 * goes away must not end a merge.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_SIGNALS_H
#define CLI_SIGNALS_H

#include <stdbool.h>

struct lorafold_batch;
struct lorafold_error;
struct lorafold_merge;

void cli_signals_install(void);

/*
 * Work begins: a signal, also one that came since the last call, cancels `merge`
 * (may be NULL) and sets the flag that is returned, for the `cancel` member of
 * options.
 */
const volatile int *cli_signals_begin(struct lorafold_merge *merge);

/* Planning begins, which looks at the flag that is returned. */
const volatile int *cli_signals_begin_planning(void);

/* Work as above, by a batch. */
void cli_signals_begin_batch(struct lorafold_batch *batch);

/* The work is over; to be called before the merge or batch is closed. */
void cli_signals_end(void);

bool cli_signals_came(void);

/* LORAFOLD_CANCELLED if one came, else 0: for work that looks at no flag. */
int cli_signals_check(struct lorafold_error *err);

/* 128 + the first signal that came: 130, 143 or 129; 130 if none came. */
int cli_signals_exit_status(void);

#endif

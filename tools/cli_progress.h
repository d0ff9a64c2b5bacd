/*
 * cli_progress.h - one line on a terminal that shows how far the work is
 *
 * The line is drawn over itself, never wider than the terminal, and erased
 * before anything else is printed.  One thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lorafold_progress;

struct cli_progress {
    bool enabled; /* off: nothing is ever written */
    bool visible; /* the line is on the screen now */
    bool started;
    bool preparing;       /* rate is that of the preparation */
    double drawn_seconds; /* of the progress last drawn */
    double rate_seconds;  /* of the progress that rate was last computed from */
    uint64_t rate_bytes;
    double rate; /* bytes per second, smoothed over about two seconds */
};

/* Enabled if `wanted` and standard error is a terminal that can erase a line. */
void cli_progress_init(struct cli_progress *progress, bool wanted);

/* Draw the line if the last one is a tenth of a second old. */
void cli_progress_show(struct cli_progress *progress, const struct lorafold_progress *now);

/* Draw a sentence in place of the line. */
void cli_progress_say(struct cli_progress *progress, const char *sentence);

/* Take the line from the screen. */
void cli_progress_erase(struct cli_progress *progress);

/* Bytes per second from what was seen so far; called with rising `now->seconds`. */
double cli_progress_rate(struct cli_progress *progress, const struct lorafold_progress *now);

/*
 * The line without escapes, shorter than `columns`: what does not fit is left out, the least
 * important part first.  ASCII only, so a byte is a column.
 */
void cli_progress_format(char *buf, size_t buf_bytes, const struct lorafold_progress *now,
                         double rate, unsigned columns);

#endif

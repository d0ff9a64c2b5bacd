/*
 * cli_console.h - everything that the program prints, and in which form
 *
 * Results go to standard output, talk goes to standard error.  With --json
 * standard output carries one object per line, each with a "type", and standard
 * error nothing but the sentence of an error.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_CONSOLE_H
#define CLI_CONSOLE_H

#include "cli_progress.h"
#include "lorafold.h"

#include <stdbool.h>
#include <stdio.h>

struct cli_arguments;

struct cli_console {
    bool json;
    bool quiet;
    bool verbose;
    int output_errno;      /* why standard output could not be written, or 0 */
    const char *aftermath; /* what is true even if standard output failed, or NULL */
    double json_seconds;   /* of the progress object written last */
    struct cli_progress progress;
};

/*
 * Give descriptors 0 to 2 a meaning if the caller closed them: the library would open a model
 * file as one of them, and a message would end up in it.
 */
void cli_console_secure(void);

void cli_console_init(struct cli_console *console, const struct cli_arguments *arguments);

/*
 * Print a result on standard output; with --json `text` is objects, one per line, each with its
 * "type", as the library makes them.  NULL means that there was no memory for it: LORAFOLD_FAILED.
 */
int cli_console_result(struct cli_console *console, const char *text, struct lorafold_error *err);

/* Print the plan of a merge that is about to run: on standard error, or as a result with --json. */
int cli_console_plan(struct cli_console *console, const char *text, struct lorafold_error *err);

/* The callbacks of the library; `context` is the console. */
void cli_console_message(void *context, enum lorafold_level level, const char *sentence);
void cli_console_progress(void *context, const struct lorafold_progress *now);

/* Print what went wrong and return the exit status for it. */
int cli_console_error(struct cli_console *console, const struct lorafold_error *err);

/* Write out what is left.  Returns `exit_status`, or 1 if that was 0 and standard output failed. */
int cli_console_finish(struct cli_console *console, int exit_status);

#endif

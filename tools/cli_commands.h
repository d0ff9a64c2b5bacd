/*
 * cli_commands.h - what each command does
 *
 * Each returns 0 or an enum lorafold_status with the sentence in *err.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include <stdbool.h>

struct cli_arguments;
struct cli_console;
struct lorafold_error;
struct lorafold_merge_options;

int cli_merge(const struct cli_arguments *arguments, struct cli_console *console,
              struct lorafold_error *err); /* also plan */
/* Part of these: several outputs. */
bool cli_is_batch(const struct cli_arguments *arguments);
int cli_batch(const struct lorafold_merge_options *common, const struct cli_arguments *arguments,
              struct cli_console *console, struct lorafold_error *err);
int cli_verify(const struct cli_arguments *arguments, struct cli_console *console,
               struct lorafold_error *err);
int cli_inspect(const struct cli_arguments *arguments, struct cli_console *console,
                struct lorafold_error *err);
int cli_bench(const struct cli_arguments *arguments, struct cli_console *console,
              struct lorafold_error *err);
int cli_fetch(const struct cli_arguments *arguments, struct cli_console *console,
              struct lorafold_error *err);
/* What the options say of a push to `repo`. */
struct lorafold_destination cli_destination(const struct cli_arguments *arguments,
                                            const char *repo);
int cli_push(const struct cli_arguments *arguments, struct cli_console *console,
             struct lorafold_error *err);
int cli_help(const struct cli_arguments *arguments, struct cli_console *console,
             struct lorafold_error *err);

#endif

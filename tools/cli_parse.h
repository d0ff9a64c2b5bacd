/*
 * cli_parse.h - from argv to struct cli_arguments
 *
 * Options and arguments may come in any order, also before the command; "--"
 * ends the options.  "--opt VALUE", "--opt=VALUE", "-o VALUE", "-oVALUE",
 * "-o=VALUE" and, for flags, "-qn" are the spellings; '_' and '-' are equal in names.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_PARSE_H
#define CLI_PARSE_H

struct cli_arguments;
struct lorafold_error;

/*
 * Returns 0 or an enum lorafold_status.  `command`, `json`, `help` and `version` are set
 * also on failure, as far as they could be found; with `help` or `version` the rest is not
 * read.  Cuts adapter arguments in argv at their ':'.  The caller releases `out` in any case.
 */
int cli_parse(struct cli_arguments *out, int argc, char **argv, struct lorafold_error *err);

void cli_arguments_release(struct cli_arguments *arguments);

#endif

/*
 * cli_values.h - the value of one option, checked and stored
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_VALUES_H
#define CLI_VALUES_H

struct cli_arguments;
struct cli_token;
struct lorafold_adapter;
struct lorafold_error;

/* Store a sentence; returns code. */
int cli_fail(struct lorafold_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Put the value of an option (a CLI_TOKEN_OPTION) into its member of *out; 0 or
 * LORAFOLD_USAGE.  out->adapters must have room for one more.
 */
int cli_store_value(struct cli_arguments *out, const struct cli_token *token,
                    struct lorafold_error *err);

/*
 * PATH[:WEIGHT].  If `text` exists as a path it is taken whole, with weight 1; else what
 * is behind its last ':' must be a finite number.  Cuts `text` there.
 */
int cli_parse_adapter(struct lorafold_adapter *out, char *text, struct lorafold_error *err);

#endif

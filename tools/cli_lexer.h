/*
 * cli_lexer.h - argv as a row of options, with their values, and arguments
 *
 * Knows how options are spelled, not what they mean: see cli_parse.h for the
 * spellings.  Nothing is allocated; texts point into argv.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_LEXER_H
#define CLI_LEXER_H

#include <stdbool.h>

struct cli_option;

enum cli_token_kind {
    CLI_TOKEN_END,
    CLI_TOKEN_ARGUMENT,
    CLI_TOKEN_OPTION,       /* `option`, and `value` if it takes one */
    CLI_TOKEN_UNKNOWN,      /* `spelling` is no option */
    CLI_TOKEN_VALUE_ABSENT, /* `option` needs a value; `value` is what cannot be one, or NULL */
    CLI_TOKEN_VALUE_EXTRA   /* `option` takes no value, but `value` was given */
};

struct cli_token {
    enum cli_token_kind kind;
    const struct cli_option *option;
    char spelling[72]; /* with its dashes, as typed, safe to print */
    char *value;       /* points into argv */
};

struct cli_lexer {
    int argc;
    char **argv;
    int index;     /* of the next argument */
    char *letters; /* the rest of a cluster like -qv, or NULL */
    bool options_ended;
};

/* Start with { .argc = argc, .argv = argv, .index = 1 }; after the last one comes CLI_TOKEN_END. */
void cli_lexer_next(struct cli_lexer *lexer, struct cli_token *token);

#endif

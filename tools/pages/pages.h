/*
 * pages.h - the manual page and the shells' completions, made from the program's own tables
 *
 * Run by the build.  What an option is called, what it means and which words it takes stand in
 * cli_options.c and nowhere else; only the prose of the manual page is a file, lorafold.1.in.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PAGES_H
#define PAGES_H

#include "cli_options.h"

#include <stdbool.h>
#include <stdio.h>

/* What a shell offers for the value of an option, or for the argument of a command. */
enum pages_values {
    PAGES_NOTHING,
    PAGES_WORDS, /* the choices of the option */
    PAGES_DIRECTORIES,
    PAGES_FILES,
    PAGES_MODELS, /* directories and .safetensors files */
    PAGES_TOPICS  /* commands, and the texts of `lorafold help` */
};

/* Ends the program if value_name (NULL: takes none) is in no row of the table in pages.c. */
enum pages_values pages_values_of(const char *value_name, const struct cli_choice *choices);

/* Offered are the choices that the help names; other spellings of them are accepted, not shown. */
bool pages_offered(const struct cli_option *option, const struct cli_choice *choice);

/* Is it an option of this command that the help shows? */
bool pages_shown(const struct cli_option *option, const struct cli_command *command);

/*
 * Print `before` and "merge|plan", the command and the later ones that are alike.  False, and
 * nothing is printed, if that was done for an earlier one.
 */
bool pages_print_alike(FILE *out, const char *before, const struct cli_command *command);

/* The first command with the same argument and options, perhaps the command itself. */
const struct cli_command *pages_first_alike(const struct cli_command *command);

/* Print one sentence and end the program. */
_Noreturn void pages_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The template line by line; a line "@commands" or "@topic NAME" gives way to what it names. */
void pages_manual(FILE *template, FILE *out);
void pages_bash(FILE *out);
void pages_zsh(FILE *out);

#endif

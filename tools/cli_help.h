/*
 * cli_help.h - the help texts, made from the tables of cli_options.h
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef CLI_HELP_H
#define CLI_HELP_H

#include <stdio.h>

struct cli_command;

/* The help of one command; NULL: of the program. */
void cli_help_command(FILE *file, const struct cli_command *command);

#endif

/*
 * lorafold.c - the program: one command per run, see cli_options.h
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "lorafold.h"

#include "cli_commands.h"
#include "cli_console.h"
#include "cli_help.h"
#include "cli_options.h"
#include "cli_parse.h"
#include "cli_signals.h"

#include <stdio.h>

/* More than any help text, so that a failure to write one is noticed where it is flushed. */
#define OUTPUT_BYTES 65536

static int run(const struct cli_arguments *arguments, struct cli_console *console,
               struct lorafold_error *err)
{
    if (arguments->help) {
        cli_help_command(stdout, arguments->command);
        return 0;
    }
    if (arguments->version) {
        printf("lorafold %s\n", lorafold_version());
        return 0;
    }
    if (arguments->note)
        cli_console_message(console, LORAFOLD_NOTICE, arguments->note);
    return arguments->command->run(arguments, console, err);
}

int main(int argc, char **argv)
{
    struct lorafold_error err = { 0 };
    struct cli_arguments arguments;
    struct cli_console console;
    int exit_status = 0;
    int status;

    cli_console_secure();
    setvbuf(stdout, NULL, _IOFBF, OUTPUT_BYTES);
    setvbuf(stderr, NULL, _IOLBF, BUFSIZ); /* a sentence is one write: others write there too */
    cli_signals_install();
    if (argc < 2) {
        cli_help_command(stderr, NULL);
        return LORAFOLD_USAGE;
    }
    status = cli_parse(&arguments, argc, argv, &err);
    cli_console_init(&console, &arguments);
    if (!status)
        status = run(&arguments, &console, &err);
    err.code = status;
    if (status)
        exit_status = cli_console_error(&console, &err);
    exit_status = cli_console_finish(&console, exit_status);
    cli_arguments_release(&arguments);
    return exit_status;
}

#include "cli_help.h"

#include "cli_commands.h"
#include "cli_options.h"
#include "cli_text.h"
#include "cli_values.h"
#include "lorafold.h"

#include <stdbool.h>
#include <string.h>

#define TEXT_COLUMNS 80
#define OPTION_COLUMN 26

/*
 * Print words from `text` between the columns `indent` and TEXT_COLUMNS, with the cursor in
 * `column` at the start and at the beginning of a new line at the end.
 */
static void print_wrapped(FILE *file, const char *text, size_t indent, size_t column)
{
    bool line_empty = true;

    while (*text) {
        size_t word = strcspn(text, " \n");
        bool broken = text[word] == '\n';

        if (!line_empty && column + 1 + word > TEXT_COLUMNS) {
            fputc('\n', file);
            column = 0;
            line_empty = true;
        }
        if (line_empty)
            fprintf(file, "%*s", (int)(indent > column ? indent - column : 0), "");
        else
            fputc(' ', file);
        fwrite(text, 1, word, file);
        column = (line_empty ? (column > indent ? column : indent) : column + 1) + word;
        line_empty = broken;
        if (broken) {
            fputc('\n', file);
            column = 0;
        }
        text += word + (text[word] ? 1 : 0);
    }
    if (!line_empty)
        fputc('\n', file);
}

static void print_option(FILE *file, const struct cli_option *option)
{
    char spelling[OPTION_COLUMN * 2];
    char letter[5] = "    ";
    size_t column;

    if (option->letter)
        snprintf(letter, sizeof(letter), "-%c, ", option->letter);
    snprintf(spelling, sizeof(spelling), "  %s--%s%s%s", letter, option->name,
             option->value_name ? " " : "", option->value_name ? option->value_name : "");
    fputs(spelling, file);
    column = strlen(spelling);
    if (column > OPTION_COLUMN - 2) {
        fputc('\n', file);
        column = 0;
    }
    print_wrapped(file, option->help, OPTION_COLUMN, column);
}

/* "--base, --model and ... for --base-model": what else is accepted. */
static void print_aliases(FILE *file, const struct cli_command *command)
{
    bool first = true;

    for (const struct cli_option *option = cli_options; option->name; option++) {
        char line[512];
        size_t used = 0;

        if (!(option->commands & command->bit))
            continue;
        for (const struct cli_alias *alias = cli_aliases; alias->name; alias++)
            if (strcmp(alias->option, option->name) == 0 && used < sizeof(line))
                used += (size_t)snprintf(line + used, sizeof(line) - used, "%s--%s",
                                         used ? ", " : "", alias->name);
        if (!used)
            continue;
        if (first)
            fputs("\nother spellings ('_' and '-' are equal in names):\n", file);
        first = false;
        fprintf(file, "  --%s:\n", option->name);
        print_wrapped(file, line, 6, 0);
    }
}

static bool has_sizes(const struct cli_command *command)
{
    for (const struct cli_option *option = cli_options; option->name; option++)
        if (option->kind == CLI_SIZE && option->commands & command->bit)
            return true;
    return false;
}

static void print_command(FILE *file, const struct cli_command *command)
{
    fprintf(file, "lorafold %s - %s\n\nusage: lorafold %s %s\n\n", command->name, command->summary,
            command->name, command->usage);
    print_wrapped(file, command->about, 0, 0);
    fputs("\noptions:\n", file);
    for (const struct cli_option *option = cli_options; option->name; option++)
        if (option->commands & command->bit && !option->hidden)
            print_option(file, option);
    if (has_sizes(command))
        fputs("\nSIZE is a number of bytes; 5GB and 200MB are decimal, 128MiB and 1GiB binary.\n",
              file);
    print_aliases(file, command);
    fprintf(file, "\nexamples:\n%s", command->examples);
}

static void print_program(FILE *file)
{
    fputs("lorafold - fold LoRA adapters into a base model of any size, in fixed memory\n\n"
          "usage: lorafold COMMAND [ARGUMENT] [OPTION ...]\n\n"
          "commands:\n",
          file);
    for (const struct cli_command *command = cli_commands; command->name; command++)
        fprintf(file, "  %-10s%s\n", command->name, command->summary);
    fputs("\ntexts:\n", file);
    for (const struct cli_topic *topic = cli_topics; topic->name; topic++)
        fprintf(file, "  help %-12s%s\n", topic->name, topic->summary);
    fputs("\n"
          "examples:\n"
          "  lorafold merge ./Llama-3.1-8B -a ./my-adapter -o ./merged\n"
          "  lorafold verify ./merged\n"
          "\n"
          "'lorafold COMMAND --help' shows a command's options, 'lorafold --version' the\n"
          "version.  Options may stand anywhere; '--' ends them.\n",
          file);
}

void cli_help_command(FILE *file, const struct cli_command *command)
{
    if (command)
        print_command(file, command);
    else
        print_program(file);
}

int cli_help(const struct cli_arguments *arguments, struct cli_console *console,
             struct lorafold_error *err)
{
    const char *name = arguments->positional;
    const struct cli_command *command;
    const struct cli_topic *topic;
    char quoted[CLI_QUOTED_BYTES];
    const char *nearest;

    (void)console;
    if (!name) {
        print_program(stdout);
        return 0;
    }
    command = cli_command_by_name(name);
    if (command) {
        print_command(stdout, command);
        return 0;
    }
    topic = cli_topic_by_name(name);
    if (topic) {
        fputs(topic->text, stdout);
        return 0;
    }
    nearest = cli_command_nearest(name, true);
    return cli_fail(err, LORAFOLD_USAGE, "no help on '%s'%s%s%s; see 'lorafold help'",
                    cli_quote(quoted, sizeof(quoted), name), nearest ? "; did you mean '" : "",
                    nearest ? nearest : "", nearest ? "'?" : "");
}

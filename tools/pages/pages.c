#include "pages.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* One row for each name of a value or an argument; behind a ':' or '[' it may go on. */
static const struct {
    const char *name;
    enum pages_values values;
} rows[] = {
    { "ADAPTER", PAGES_DIRECTORIES }, { "BASE", PAGES_MODELS },  { "BRANCH", PAGES_NOTHING },
    { "DIR", PAGES_DIRECTORIES },     { "FILE", PAGES_FILES },   { "MODULE", PAGES_NOTHING },
    { "N", PAGES_NOTHING },           { "NAME", PAGES_NOTHING }, { "OUT", PAGES_DIRECTORIES },
    { "PATH", PAGES_FILES },          { "REPO", PAGES_NOTHING }, { "SIZE", PAGES_NOTHING },
    { "TAG", PAGES_NOTHING },         { "TEXT", PAGES_NOTHING }, { "TOPIC", PAGES_TOPICS },
};

_Noreturn void pages_fail(const char *format, ...)
{
    va_list arguments;

    fputs("pages: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

enum pages_values pages_values_of(const char *value_name, const struct cli_choice *choices)
{
    if (!value_name)
        return PAGES_NOTHING;
    if (choices)
        return PAGES_WORDS;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t bytes = strlen(rows[i].name);

        if (strncmp(rows[i].name, value_name, bytes) == 0 && strchr(":[", value_name[bytes]))
            return rows[i].values;
    }
    pages_fail("what should a shell offer for the value '%s'?  Add a row to tools/pages/pages.c",
               value_name);
}

bool pages_offered(const struct cli_option *option, const struct cli_choice *choice)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_-:";
    size_t bytes = strlen(choice->name);

    if (choice->refusal || choice->name[bytes - 1] == ':')
        return false;
    for (const char *at = option->help; *at; at += strspn(at, letters)) {
        at += strcspn(at, letters);
        /* A ':' ends a word that is explained: "exact: two tensors". */
        if (strncmp(at, choice->name, bytes) == 0 &&
            strspn(at + bytes, letters) <= (at[bytes] == ':'))
            return true;
    }
    return false;
}

bool pages_shown(const struct cli_option *option, const struct cli_command *command)
{
    return option->commands & command->bit && !option->hidden;
}

static bool alike(const struct cli_command *one, const struct cli_command *other)
{
    for (const struct cli_option *option = cli_options; option->name; option++)
        if (pages_shown(option, one) != pages_shown(option, other))
            return false;
    return strcmp(one->argument, other->argument) == 0;
}

const struct cli_command *pages_first_alike(const struct cli_command *command)
{
    const struct cli_command *first = cli_commands;

    while (!alike(first, command))
        first++;
    return first;
}

bool pages_print_alike(FILE *out, const char *before, const struct cli_command *command)
{
    if (pages_first_alike(command) != command)
        return false;
    fprintf(out, "%s%s", before, command->name);
    for (const struct cli_command *later = command + 1; later->name; later++)
        if (alike(command, later))
            fprintf(out, "|%s", later->name);
    return true;
}

int main(int argc, char **argv)
{
    const char *page = argc > 1 ? argv[1] : "";
    bool manual = strcmp(page, "manual") == 0;
    bool bash = strcmp(page, "bash") == 0;
    FILE *template, *out;

    if (argc != 3 + manual || !(manual || bash || strcmp(page, "zsh") == 0))
        pages_fail("usage: lorafold_pages manual TEMPLATE OUT | bash OUT | zsh OUT");
    out = fopen(argv[argc - 1], "w");
    if (!out)
        pages_fail("'%s': %s", argv[argc - 1], strerror(errno));
    if (manual) {
        template = fopen(argv[2], "r");
        if (!template)
            pages_fail("'%s': %s", argv[2], strerror(errno));
        pages_manual(template, out);
        fclose(template);
    } else if (bash) {
        pages_bash(out);
    } else {
        pages_zsh(out);
    }
    if (ferror(out) | fclose(out))
        pages_fail("'%s' cannot be written", argv[argc - 1]);
    return 0;
}

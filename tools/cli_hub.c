/* cli_hub.c - the commands that are about the Hugging Face Hub */
#include "cli_commands.h"

#include "cli_console.h"
#include "cli_options.h"
#include "cli_signals.h"
#include "cli_text.h"
#include "lorafold.h"

#include <stdio.h>
#include <stdlib.h>

/* The text of what open_memstream() collected, or NULL. */
static char *close_text(FILE *file, char **text)
{
    bool failed = ferror(file) != 0;

    if (fclose(file) || failed) {
        free(*text);
        *text = NULL;
    }
    return *text;
}

int cli_fetch(const struct cli_arguments *arguments, struct cli_console *console,
              struct lorafold_error *err)
{
    struct lorafold_fetch_options options;
    char *directory = NULL;
    char *text = NULL;
    size_t text_bytes;
    FILE *file;
    int status;

    lorafold_fetch_options_init(&options);
    options.hub.token_file = arguments->token_file;
    options.hub.offline = arguments->offline;
    options.cancel = cli_signals_begin(NULL);
    options.message = cli_console_message;
    options.progress = cli_console_progress;
    options.context = console;
    status = lorafold_fetch(arguments->positional, &options, &directory, err);
    if (status)
        return status;
    if (!console->json) {
        status = cli_console_result(console, directory, err);
        lorafold_free(directory);
        return status;
    }
    file = open_memstream(&text, &text_bytes);
    if (file) {
        fputs("{\"type\":\"fetch\",\"directory\":", file);
        cli_print_json(file, directory);
        fputs("}\n", file);
        text = close_text(file, &text);
    }
    status = cli_console_result(console, text, err);
    free(text);
    lorafold_free(directory);
    return status;
}

struct lorafold_destination cli_destination(const struct cli_arguments *arguments, const char *repo)
{
    return (struct lorafold_destination){
        .repo = repo,
        .revision = arguments->revision,
        .is_private = arguments->is_private,
        .create_pr = arguments->create_pr,
        .commit_message = arguments->commit_message,
        .commit_description = arguments->commit_description,
        .tags = arguments->tags.items,
        .tag_count = arguments->tags.count,
        .datasets = arguments->datasets.items,
        .dataset_count = arguments->datasets.count,
    };
}

int cli_push(const struct cli_arguments *arguments, struct cli_console *console,
             struct lorafold_error *err)
{
    struct lorafold_push_options options;
    struct lorafold_push_report report = { 0 };
    char *text;
    int status;

    lorafold_push_options_init(&options);
    options.to = cli_destination(arguments, arguments->second);
    options.hub.token_file = arguments->token_file;
    options.cancel = cli_signals_begin(NULL);
    options.message = cli_console_message;
    options.progress = cli_console_progress;
    options.context = console;
    status = lorafold_push(arguments->positional, &options, &report, err);
    if (status)
        return status;
    console->aftermath = "the model is on the Hub";
    text = lorafold_push_describe(&report, console->json ? LORAFOLD_JSON : LORAFOLD_TEXT);
    status = cli_console_result(console, text, err);
    lorafold_free(text);
    return status;
}

#include "cli_parse.h"

#include "cli_lexer.h"
#include "cli_options.h"
#include "cli_text.h"
#include "cli_values.h"
#include "lorafold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_token(const struct cli_command *command, const struct cli_token *token,
                       struct lorafold_error *err)
{
    char quoted[CLI_QUOTED_BYTES];
    const char *nearest;

    switch (token->kind) {
    case CLI_TOKEN_UNKNOWN:
        nearest = token->spelling[1] == '-' ? cli_option_nearest(command, token->spelling + 2)
                                            : NULL;
        if (nearest)
            return cli_fail(err, LORAFOLD_USAGE, "unknown option '%s'; did you mean '--%s'?",
                            token->spelling, nearest);
        return cli_fail(err, LORAFOLD_USAGE, "unknown option '%s'", token->spelling);
    case CLI_TOKEN_VALUE_ABSENT:
        if (token->value)
            return cli_fail(err, LORAFOLD_USAGE,
                            "option '%s' needs a value, %s, and '%s' is taken for an option",
                            token->spelling, token->option->value_name,
                            cli_quote(quoted, sizeof(quoted), token->value));
        return cli_fail(err, LORAFOLD_USAGE, "option '%s' needs a value, %s", token->spelling,
                        token->option->value_name);
    case CLI_TOKEN_VALUE_EXTRA:
        return cli_fail(err, LORAFOLD_USAGE, "option '%s' takes no value, but '%s' was given",
                        token->spelling, cli_quote(quoted, sizeof(quoted), token->value));
    case CLI_TOKEN_OPTION:
        if (command && !(token->option->commands & command->bit))
            return cli_fail(err, LORAFOLD_USAGE, "option '%s' is not one of 'lorafold %s'",
                            token->spelling, command->name);
        return 0;
    case CLI_TOKEN_ARGUMENT:
    case CLI_TOKEN_END:
        break;
    }
    return 0;
}

static int take_argument(struct cli_arguments *out, char *argument, struct lorafold_error *err)
{
    const struct cli_command *command = out->command;
    char quoted[CLI_QUOTED_BYTES];

    cli_quote(quoted, sizeof(quoted), argument);
    if (!*argument)
        return cli_fail(err, LORAFOLD_USAGE, "the argument %s is empty",
                        out->positional && command->second ? command->second : command->argument);
    if (out->positional && command->second && !out->second) {
        out->second = argument;
        return 0;
    }
    if (out->positional && command->bit & (CLI_MERGE | CLI_PLAN))
        return cli_fail(
            err, LORAFOLD_USAGE,
            "one argument too many: '%s'; adapters are given with -a and the output with -o",
            quoted);
    if (out->positional && (out->second || command->bit != CLI_VERIFY))
        return cli_fail(err, LORAFOLD_USAGE, "one argument too many: '%s'", quoted);
    if (out->positional) {
        out->second = argument;
        return 0;
    }
    out->positional = argument;
    out->deep_first = out->deep;
    return 0;
}

static int unknown_command(const char *name, struct lorafold_error *err)
{
    const char *nearest = cli_command_nearest(name, false);
    char quoted[CLI_QUOTED_BYTES];
    size_t used;

    cli_quote(quoted, sizeof(quoted), name);
    if (nearest)
        return cli_fail(err, LORAFOLD_USAGE, "unknown command '%s'; did you mean '%s'?", quoted,
                        nearest);
    cli_fail(err, LORAFOLD_USAGE, "unknown command '%s'; there are", quoted);
    used = strlen(err->text);
    for (const struct cli_command *command = cli_commands; command->name; command++)
        used += (size_t)snprintf(err->text + used, sizeof(err->text) - used, "%s%s",
                                 command == cli_commands ? " " : ", ", command->name);
    return err->code;
}

/*
 * The command is the first argument, wherever it stands.  --help, --version and --json count
 * wherever they stand, too, even if something else is wrong.
 */
static int find_command(struct cli_arguments *out, int argc, char **argv,
                        struct lorafold_error *err)
{
    struct cli_lexer lexer = { .argc = argc, .argv = argv, .index = 1 };
    const char *name = NULL;
    struct cli_token token;

    for (cli_lexer_next(&lexer, &token); token.kind != CLI_TOKEN_END;
         cli_lexer_next(&lexer, &token)) {
        size_t member = token.kind == CLI_TOKEN_OPTION ? token.option->member : 0;

        if (token.kind == CLI_TOKEN_ARGUMENT && !name)
            name = token.value;
        out->help |= member == offsetof(struct cli_arguments, help);
        out->version |= member == offsetof(struct cli_arguments, version);
        out->json |= member == offsetof(struct cli_arguments, json);
    }
    if (!name)
        return 0;
    out->command = cli_command_by_name(name);
    if (out->command)
        return 0;
    return unknown_command(name, err);
}

static int read_arguments(struct cli_arguments *out, int argc, char **argv,
                          struct lorafold_error *err)
{
    struct cli_lexer lexer = { .argc = argc, .argv = argv, .index = 1 };
    const struct cli_command *command = NULL;
    struct cli_token token;
    uint64_t seen = 0; /* one bit per row of cli_options */
    int status = 0;

    for (cli_lexer_next(&lexer, &token); token.kind != CLI_TOKEN_END && !status;
         cli_lexer_next(&lexer, &token)) {
        uint64_t bit;

        if (token.kind == CLI_TOKEN_ARGUMENT && !command) {
            command = out->command;
            continue;
        }
        if (token.kind == CLI_TOKEN_ARGUMENT) {
            status = take_argument(out, token.value, err);
            continue;
        }
        status = check_token(out->command, &token, err);
        if (status)
            break;
        bit = UINT64_C(1) << (token.option - cli_options);
        if (seen & bit && cli_option_takes_value(token.option) &&
            token.option->kind != CLI_ADAPTER && token.option->kind != CLI_LIST)
            return cli_fail(err, LORAFOLD_USAGE, "option '--%s' is given twice",
                            token.option->name);
        seen |= bit;
        status = cli_store_value(out, &token, err);
    }
    return status;
}

/* `verify OUT --deep BASE`, also with --deep and BASE in front or --deep at the end. */
static int order_arguments(struct cli_arguments *out, struct lorafold_error *err)
{
    char quoted[CLI_QUOTED_BYTES];
    const char *first = out->positional;

    if (!out->second || out->command->bit != CLI_VERIFY)
        return 0;
    if (!out->deep)
        return cli_fail(err, LORAFOLD_USAGE, "one argument too many: '%s'",
                        cli_quote(quoted, sizeof(quoted), out->second));
    if (out->deep_first) {
        out->positional = out->second;
        out->second = first;
    }
    return 0;
}

static int check_batch(const struct cli_arguments *out, struct lorafold_error *err)
{
    bool listed = out->adapters_dir || out->jobs;

    if (listed && out->adapter_count && !out->each)
        return cli_fail(err, LORAFOLD_USAGE,
                        "'-a' beside '%s' needs '--each', which makes an output of it as well",
                        out->jobs ? "--jobs" : "--adapters-dir");
    if (out->skip_existing && !out->each && !listed)
        return cli_fail(err, LORAFOLD_USAGE,
                        "'--skip-existing' is for several outputs: '--each', '--adapters-dir' or "
                        "'--jobs'");
    if (out->skip_existing && out->overwrite)
        return cli_fail(err, LORAFOLD_USAGE,
                        "'--skip-existing' and '--overwrite' exclude each other");
    return 0;
}

static int check_device(const struct cli_arguments *out, struct lorafold_error *err)
{
    bool limited = out->gpu_memory.bytes > 0 || out->gpu_memory.fraction > 0;

    if (limited && out->device && strcmp(out->device, "cpu") == 0)
        return cli_fail(err, LORAFOLD_USAGE,
                        "'--gpu-memory' is for a GPU, and '--device cpu' uses none");
    return 0;
}

static int check_push(const struct cli_arguments *out, struct lorafold_error *err)
{
    bool is_push = out->push_to_hub || out->command->bit == CLI_PUSH;
    const char *idle = out->no_local             ? "no-local"
                       : out->is_private         ? "private"
                       : out->create_pr          ? "create-pr"
                       : out->revision           ? "revision"
                       : out->commit_message     ? "commit-message"
                       : out->commit_description ? "commit-description"
                       : out->tags.count         ? "tag"
                       : out->datasets.count     ? "dataset"
                                                 : NULL;

    if (!is_push && idle)
        return cli_fail(err, LORAFOLD_USAGE, "'--%s' is for a push: give '--push-to-hub' as well",
                        idle);
    if (out->push_to_hub && (out->each || out->adapters_dir || out->jobs))
        return cli_fail(err, LORAFOLD_USAGE,
                        "'--push-to-hub' is for one output: push each of several with 'lorafold "
                        "push'");
    return 0;
}

/* What is wrong only when everything has been read. */
static int check_arguments(struct cli_arguments *out, struct lorafold_error *err)
{
    const struct cli_command *command = out->command;
    bool merging = command && command->bit & (CLI_MERGE | CLI_PLAN);

    if (!command)
        return cli_fail(err, LORAFOLD_USAGE, "no command given");
    if (out->quiet && out->verbose)
        return cli_fail(err, LORAFOLD_USAGE, "'-q' and '-v' exclude each other");
    if (out->torch && out->safetensors)
        return cli_fail(err, LORAFOLD_USAGE,
                        "'--safe-serialization' and '--no-safe-serialization' exclude each other");
    if (out->skip_disk && out->skip_kernels)
        return cli_fail(err, LORAFOLD_USAGE,
                        "'--skip-disk' and '--skip-kernels' leave nothing to measure");
    if (command->argument_required && !out->positional)
        return cli_fail(err, LORAFOLD_USAGE, "the argument %s is missing", command->argument);
    if (command->second && !out->second)
        return cli_fail(err, LORAFOLD_USAGE, "the argument %s is missing", command->second);
    if (!merging)
        return order_arguments(out, err);
    if (out->base && out->positional)
        return cli_fail(err, LORAFOLD_USAGE, "the base is given twice, as argument and as option");
    if (out->positional)
        out->base = out->positional;
    if (check_batch(out, err) || check_device(out, err))
        return err->code;
    if (out->save_method == LORAFOLD_LORA && out->max_shard_bytes)
        return cli_fail(err, LORAFOLD_USAGE,
                        "'--max-shard-size' is for models: an adapter is one file");
    if (!out->adapter_count && !out->adapters_dir && !out->jobs)
        return cli_fail(err, LORAFOLD_USAGE, "no adapter given; add -a ADAPTER");
    if (check_push(out, err))
        return err->code;
    if (!out->output && !out->no_local && command->bit == CLI_MERGE && !out->dry_run)
        return cli_fail(err, LORAFOLD_USAGE, "no output directory given; add -o OUT");
    return 0;
}

/* Every sentence about the command line ends with where to read more. */
static void point_to_help(const struct cli_arguments *arguments, struct lorafold_error *err)
{
    size_t used = strlen(err->text);

    if (arguments->command)
        snprintf(err->text + used, sizeof(err->text) - used, "; see 'lorafold %s --help'",
                 arguments->command->name);
    else
        snprintf(err->text + used, sizeof(err->text) - used, "; see 'lorafold --help'");
}

static int open_list(struct cli_list *list, int argc)
{
    list->items = calloc((size_t)argc + 1, sizeof(*list->items));
    return list->items ? 0 : LORAFOLD_FAILED;
}

int cli_parse(struct cli_arguments *out, int argc, char **argv, struct lorafold_error *err)
{
    int status;

    *out = (struct cli_arguments){ 0 };
    status = find_command(out, argc, argv, err);
    if (!status && (out->help || out->version))
        return 0;
    out->adapters = calloc((size_t)argc + 1, sizeof(*out->adapters));
    if (!out->adapters || open_list(&out->skip, argc) || open_list(&out->tags, argc) ||
        open_list(&out->datasets, argc))
        return cli_fail(err, LORAFOLD_FAILED, "out of memory for the arguments");
    if (!status)
        status = read_arguments(out, argc, argv, err);
    if (!status)
        status = check_arguments(out, err);
    if (status)
        point_to_help(out, err);
    return status;
}

void cli_arguments_release(struct cli_arguments *arguments)
{
    free(arguments->adapters);
    free(arguments->skip.items);
    free(arguments->tags.items);
    free(arguments->datasets.items);
    arguments->adapters = NULL;
    arguments->skip = arguments->tags = arguments->datasets = (struct cli_list){ 0 };
}

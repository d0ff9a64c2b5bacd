#include "cli_commands.h"

#include "cli_console.h"
#include "cli_options.h"
#include "cli_signals.h"
#include "cli_text.h"
#include "lorafold.h"

#include <string.h>

static enum lorafold_format result_format(const struct cli_console *console)
{
    return console->json ? LORAFOLD_JSON : LORAFOLD_TEXT;
}

static void merge_options(struct lorafold_merge_options *options,
                          const struct cli_arguments *arguments, struct cli_console *console)
{
    lorafold_merge_options_init(options);
    options->base = arguments->base;
    options->adapters = arguments->adapters;
    options->adapter_count = arguments->adapter_count;
    options->output = arguments->output;
    options->tokenizer = arguments->tokenizer;
    options->dtype = (enum lorafold_dtype)arguments->dtype;
    options->tied = (enum lorafold_tied)arguments->tied;
    options->save_method = (enum lorafold_save_method)arguments->save_method;
    options->base_numerics = (enum lorafold_base_numerics)arguments->base_numerics;
    options->original_base = arguments->original_base;
    options->quant_type = (enum lorafold_quant_type)arguments->quant_type;
    options->single_quant = arguments->single_quant;
    options->skip = arguments->skip.items;
    options->skip_count = arguments->skip.count;
    options->b_layout = (enum lorafold_b_layout)arguments->b_layout;
    if (arguments->max_shard_bytes)
        options->max_shard_bytes = arguments->max_shard_bytes;
    if (arguments->memory_bytes)
        options->memory_bytes = arguments->memory_bytes;
    if (arguments->threads)
        options->threads = arguments->threads;
    options->device = arguments->device;
    options->gpu_memory_bytes = arguments->gpu_memory.bytes;
    options->gpu_memory_fraction = arguments->gpu_memory.fraction;
    options->trace = arguments->trace;
    options->clone = (enum lorafold_clone)arguments->clone;
    options->overwrite = arguments->overwrite;
    options->allow_unused = arguments->allow_unused;
    options->allow_nonfinite = arguments->allow_nonfinite;
    options->strict = arguments->strict;
    options->hub.token_file = arguments->token_file;
    options->hub.offline = arguments->offline;
    if (arguments->push_to_hub)
        options->push_to = cli_destination(arguments, arguments->push_to_hub);
    options->no_local = arguments->no_local;
    options->safe_serialization = !arguments->torch;
    options->variant = arguments->variant;
    options->message = cli_console_message;
    options->progress = cli_console_progress;
    options->context = console;
    options->io_engine = arguments->io_engine;
    options->io_direct = arguments->io_direct;
    options->kernels = arguments->kernels;
}

static int run_merge(struct lorafold_merge *merge, struct cli_console *console,
                     struct lorafold_error *err)
{
    struct lorafold_report report;
    char *text;
    int status;

    cli_signals_begin(merge);
    status = lorafold_merge_run(merge, err);
    cli_signals_end();
    if (status)
        return status;
    console->aftermath = "the merged model is complete";
    lorafold_merge_report(merge, &report);
    text = lorafold_report_describe(&report, result_format(console));
    status = cli_console_result(console, text, err);
    lorafold_free(text);
    return status;
}

int cli_merge(const struct cli_arguments *arguments, struct cli_console *console,
              struct lorafold_error *err)
{
    bool plan_only = arguments->command->bit == CLI_PLAN || arguments->dry_run;
    struct lorafold_merge_options options;
    struct lorafold_merge *merge = NULL;
    char *text = NULL;
    int status;

    merge_options(&options, arguments, console);
    options.plan_only = plan_only;
    options.cancel = cli_signals_begin_planning();
    if (cli_is_batch(arguments))
        return cli_batch(&options, arguments, console, err);
    status = lorafold_merge_open(&merge, &options, err);
    if (!status)
        status = cli_signals_check(err);
    if (status)
        goto out;
    text = lorafold_merge_describe(merge, result_format(console));
    if (plan_only)
        status = cli_console_result(console, text, err);
    else
        status = cli_console_plan(console, text, err);
    if (status)
        goto out;
    if (!plan_only)
        status = run_merge(merge, console, err);
out:
    lorafold_free(text);
    lorafold_merge_close(merge);
    return status;
}

static void describe_verify(const struct lorafold_verify_report *report, char *text, size_t bytes)
{
    char size[24];
    char part[24];
    char outputs[40] = "";
    size_t used;

    if (report->output_count > 1)
        snprintf(outputs, sizeof(outputs), "%zu outputs: ", report->output_count);
    used = (size_t)snprintf(
        text, bytes, "verified %s%zu file%s, %s in %.2f s (%.2f GB/s), as written", outputs,
        report->file_count, report->file_count == 1 ? "" : "s",
        cli_format_bytes(size, sizeof(size), (double)report->bytes), report->seconds,
        report->seconds > 0 ? (double)report->bytes / report->seconds / 1e9 : 0);
    if (report->bytes_shared)
        snprintf(text + used, bytes - used, "; %s of them are the base's",
                 cli_format_bytes(part, sizeof(part), (double)report->bytes_shared));
    if (report->bytes_unread)
        snprintf(text + used, bytes - used,
                 "; %s more were cloned from the base and not read: --deep compares them with it",
                 cli_format_bytes(part, sizeof(part), (double)report->bytes_unread));
}

int cli_verify(const struct cli_arguments *arguments, struct cli_console *console,
               struct lorafold_error *err)
{
    struct lorafold_verify_options options;
    struct lorafold_verify_report report = { 0 };
    char text[320];
    int status;

    lorafold_verify_options_init(&options);
    if (arguments->memory_bytes)
        options.memory_bytes = arguments->memory_bytes;
    if (arguments->threads)
        options.threads = arguments->threads;
    options.deep = arguments->deep;
    options.base = arguments->second;
    options.cancel = cli_signals_begin(NULL);
    options.message = cli_console_message;
    options.progress = cli_console_progress;
    options.context = console;
    options.io_direct = arguments->io_direct;
    status = lorafold_verify(arguments->positional, &options, &report, err);
    if (status)
        return status;
    if (console->json)
        snprintf(text, sizeof(text),
                 "{\"type\":\"report\",\"output_count\":%zu,\"file_count\":%zu,\"bytes\":%llu,"
                 "\"bytes_shared\":%llu,"
                 "\"bytes_unread\":%llu,\"seconds\":%.3f,\"bytes_per_second\":%.0f}",
                 report.output_count, report.file_count, (unsigned long long)report.bytes,
                 (unsigned long long)report.bytes_shared, (unsigned long long)report.bytes_unread,
                 report.seconds, report.seconds > 0 ? (double)report.bytes / report.seconds : 0);
    else
        describe_verify(&report, text, sizeof(text));
    return cli_console_result(console, text, err);
}

int cli_inspect(const struct cli_arguments *arguments, struct cli_console *console,
                struct lorafold_error *err)
{
    char *text = NULL;
    int status = lorafold_inspect(arguments->positional, result_format(console), arguments->tensors,
                                  &text, err);

    if (!status)
        status = cli_console_result(console, text, err);
    lorafold_free(text);
    return status;
}

int cli_bench(const struct cli_arguments *arguments, struct cli_console *console,
              struct lorafold_error *err)
{
    struct lorafold_bench_options options;
    char *text = NULL;
    int status;

    lorafold_bench_options_init(&options);
    if (arguments->positional)
        options.directory = arguments->positional;
    if (arguments->file_bytes)
        options.file_bytes = arguments->file_bytes;
    if (arguments->threads)
        options.threads = arguments->threads;
    options.skip_disk = arguments->skip_disk;
    options.skip_kernels = arguments->skip_kernels;
    options.message = cli_console_message;
    options.context = console;
    options.cancel = cli_signals_begin(NULL);
    status = lorafold_bench(&options, result_format(console), &text, err);
    if (!status)
        status = cli_console_result(console, text, err);
    lorafold_free(text);
    return status;
}

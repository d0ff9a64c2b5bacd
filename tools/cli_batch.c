/* cli_batch.c - merge and plan of several outputs */
#include "cli_commands.h"

#include "cli_console.h"
#include "cli_options.h"
#include "cli_signals.h"
#include "lorafold.h"

#include <stddef.h>
#include <sys/resource.h>

bool cli_is_batch(const struct cli_arguments *arguments)
{
    return arguments->each || arguments->adapters_dir || arguments->jobs;
}

/* One output of each adapter, of each below a directory, and of each that a file lists. */
static int add_outputs(struct lorafold_batch *batch, const struct lorafold_merge_options *common,
                       const struct cli_arguments *arguments, struct lorafold_error *err)
{
    int status = 0;

    for (size_t i = 0; i < arguments->adapter_count && !status; i++) {
        struct lorafold_merge_options options = *common;

        options.adapters = &arguments->adapters[i];
        options.adapter_count = 1;
        status = lorafold_batch_add(batch, NULL, &options, err);
    }
    if (!status && arguments->adapters_dir)
        status = lorafold_batch_add_directory(batch, arguments->adapters_dir, err);
    if (!status && arguments->jobs)
        status = lorafold_batch_add_jobs(batch, arguments->jobs, err);
    return status;
}

/* The summary comes also where some outputs failed. */
static int run_batch(struct lorafold_batch *batch, struct cli_console *console,
                     enum lorafold_format format, struct lorafold_error *err)
{
    struct lorafold_error printing = { 0 };
    struct lorafold_batch_report report;
    char *text;
    int status;

    cli_signals_begin_batch(batch);
    status = lorafold_batch_run(batch, err);
    cli_signals_end();
    lorafold_batch_report(batch, &report);
    if (status && report.complete + report.existing == 0)
        return status;
    console->aftermath = status ? "the outputs that are listed as complete are"
                                : "all outputs are complete";
    text = lorafold_batch_summary(batch, format);
    if (cli_console_result(console, text, &printing) && !status) {
        *err = printing;
        status = printing.code;
    }
    lorafold_free(text);
    return status;
}

/* Every output has files of its own open: as many as this process may ask for. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* where that fails, the library counts with less */
    }
}

/* A plan with outputs left out is a plan, and what is wrong with it was told. */
static int judge_plan(const struct lorafold_batch *batch, struct lorafold_error *err)
{
    size_t count = lorafold_batch_count(batch);
    size_t left_out = 0;

    for (size_t i = 0; i < count; i++) {
        struct lorafold_batch_output output;

        lorafold_batch_output(batch, i, &output);
        left_out += output.state == LORAFOLD_OUTPUT_LEFT_OUT;
    }
    if (left_out == 0)
        return 0;
    snprintf(err->text, sizeof(err->text), "%zu of %zu outputs cannot be made", left_out, count);
    return err->code = LORAFOLD_FAILED;
}

int cli_batch(const struct lorafold_merge_options *common, const struct cli_arguments *arguments,
              struct cli_console *console, struct lorafold_error *err)
{
    enum lorafold_format format = console->json ? LORAFOLD_JSON : LORAFOLD_TEXT;
    bool plan_only = common->plan_only;
    struct lorafold_batch *batch = NULL;
    char *text = NULL;
    int status;

    raise_file_limit();
    status = lorafold_batch_create(&batch, common,
                                   arguments->skip_existing ? LORAFOLD_SKIP_EXISTING : 0, err);
    if (!status)
        status = add_outputs(batch, common, arguments, err);
    if (!status)
        status = lorafold_batch_open(batch, err);
    if (!status)
        status = cli_signals_check(err);
    if (status)
        goto out;
    text = lorafold_batch_describe(batch, format);
    status = plan_only ? cli_console_result(console, text, err)
                       : cli_console_plan(console, text, err);
    if (status)
        goto out;
    status = plan_only ? judge_plan(batch, err) : run_batch(batch, console, format, err);
out:
    lorafold_free(text);
    lorafold_batch_close(batch);
    return status;
}

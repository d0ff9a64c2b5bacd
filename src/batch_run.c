/*
 * batch_run.c - the outputs of a batch are made
 *
 * The pipeline makes them together and says when one is complete; it is published then.
 */
#include "batch.h"

#include "io/usage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void fail(struct batch_output *output, const struct error *err)
{
    output->state = LORAFOLD_OUTPUT_FAILED;
    output->error = *err;
    if (err->code != ERR_CANCELLED)
        log_say(&output->batch->log, LOG_WARNING, "output '%s' failed: %s", output->name,
                err->text);
}

static void end_output(void *context, size_t number, struct error *err)
{
    struct lorafold_batch *batch = context;
    struct batch_output *output = batch->made[number];

    if (err->code == 0) {
        output->merge->order = batch->orders[number];
        batch->orders[number].digests = NULL;
        batch->orders[number].cloned = NULL;
        (void)merge_finish(output->merge, output->outdir, &batch->stop.cancelled, err);
    }
    if (err->code == 0) {
        output->state = LORAFOLD_OUTPUT_COMPLETE;
    } else if (output->state == LORAFOLD_OUTPUT_PLANNED) {
        fail(output, err);
    }
    outdir_close(output->outdir); /* discarded, unless it is published */
    output->outdir = NULL;
}

static void show_progress(void *context, const struct pipeline_progress *from)
{
    static const enum lorafold_limit limits[STAGE_COUNT] = { LORAFOLD_LIMIT_READ,
                                                             LORAFOLD_LIMIT_COMPUTE,
                                                             LORAFOLD_LIMIT_WRITE };
    struct lorafold_batch *batch = context;
    const struct batch_output *newest = batch->made[from->output];
    struct lorafold_progress progress = {
        .bytes_done = from->bytes_done,
        .seconds = clock_seconds() - batch->opened_at,
        .limit = limits[from->limit],
        .outputs_total = batch->made_count,
    };
    char file[400];

    snprintf(file, sizeof(file), "%s/%s", newest->name, newest->merge->plan.files[from->file].name);
    progress.file = file;
    for (size_t i = 0; i < batch->made_count; i++) {
        const struct batch_output *output = batch->made[i];

        progress.outputs_done += output->state == LORAFOLD_OUTPUT_COMPLETE;
        /* Of one that failed nothing more will come. */
        progress.bytes_total += output->state == LORAFOLD_OUTPUT_FAILED
                                    ? batch->orders[i].bytes_written
                                    : output->merge->plan.bytes_out - batch->orders[i].bytes_cloned;
    }
    if (from->bytes_prepared) { /* what blocks of one output need, before them */
        progress.limit = LORAFOLD_LIMIT_PREPARE;
        progress.bytes_total = from->bytes_prepared;
        progress.file = newest->name;
    }
    batch->options.progress(batch->options.context, &progress);
}

static int make_directory(struct lorafold_batch *batch, struct error *err)
{
    const char *directory = batch->options.output;

    char parent[PATH_MAX];
    int fd;
    int status;

    if (mkdir(directory, 0777) < 0)
        return errno == EEXIST ? 0 : error_set_errno(err, "cannot make '%s'", directory);
    batch->directory_made = true;
    if (snprintf(parent, sizeof(parent), "%s/..", directory) >= (int)sizeof(parent))
        return error_set(err, ERR_USAGE, "'%s' is too long a path", directory);
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    status = fd < 0 ? -1 : fsync(fd);
    if (status < 0 && errno != EINVAL && errno != EOPNOTSUPP)
        error_set_errno(err, "cannot sync the directory of '%s'", directory);
    if (fd >= 0)
        close(fd);
    return err->code;
}

static int open_outdirs(struct lorafold_batch *batch, struct error *err)
{
    size_t count;
    const char **inputs = batch_list_inputs(batch, &count);

    if (!inputs)
        return error_no_memory(err, "the list of inputs");
    for (size_t i = 0; i < batch->made_count; i++) {
        struct batch_output *output = batch->made[i];
        struct error inner = { 0 };

        batch->orders[i] = (struct pipeline_output){
            .plan = &output->merge->plan,
            .directory_fd = -1,
            .allow_nonfinite = output->options.allow_nonfinite,
            .shares_base = !writes_adapter(output->merge),
            .clone_always = batch->options.clone == LORAFOLD_CLONE_ALWAYS,
        };
        if (batch_refuse_link(output, &inner) ||
            outdir_open(&output->outdir, output->path, batch->options.overwrite, inputs, count,
                        &output->merge->log, &inner)) {
            output->outdir = NULL;
            batch->orders[i].error = inner;
        } else {
            batch->orders[i].directory_fd = outdir_fd(output->outdir);
        }
    }
    free(inputs);
    return 0;
}

static int run_pipeline(struct lorafold_batch *batch, struct error *err)
{
    struct pipeline_options options = merge_pipeline_options(batch->made[0]->merge,
                                                             &batch->machine);
    int status;

    options.share = batch->options.clone != LORAFOLD_CLONE_NEVER;
    options.log = &batch->log;
    options.progress = batch->options.progress ? show_progress : NULL;
    options.ended = end_output;
    options.context = batch;
    if (open_outdirs(batch, err))
        return err->code;
    status = pipeline_run(batch->orders, batch->made_count, &batch->memory, &options, &batch->stop,
                          &batch->result, err);
    if (batch->result.abandoned)
        batch->machine = (struct machine){ 0 }; /* leaked, as the slots are */
    /* Where it ended without telling. */
    for (size_t i = 0; i < batch->made_count; i++) {
        if (batch->made[i]->state == LORAFOLD_OUTPUT_PLANNED)
            end_output(batch, i, &batch->orders[i].error);
    }
    return status;
}

static void fill_report(struct lorafold_batch *batch)
{
    const struct pipeline_result *result = &batch->result;
    struct lorafold_batch_report *report = &batch->report;
    double sum = 0;

    for (int i = 0; i < STAGE_COUNT; i++)
        sum += result->stage_seconds[i];
    if (!(sum > 0))
        sum = 1;
    report->output_count = batch->count;
    for (size_t i = 0; i < batch->count; i++) {
        enum lorafold_output_state state = batch->outputs[i].state;

        report->complete += state == LORAFOLD_OUTPUT_COMPLETE;
        report->existing += state == LORAFOLD_OUTPUT_EXISTS;
    }
    report->failed = batch->count - report->complete - report->existing;
    report->bytes_read = result->bytes_read;
    report->bytes_written = result->bytes_written;
    report->bytes_alike = result->bytes_alike;
    for (size_t i = 0; i < batch->made_count; i++)
        report->bytes_cloned += batch->orders[i].bytes_cloned;
    report->seconds = clock_seconds() - batch->opened_at;
    if (result->first_write_time > 0)
        report->seconds_to_first_write = result->first_write_time - batch->opened_at;
    report->share_read = result->stage_seconds[STAGE_READ] / sum;
    report->share_compute = result->stage_seconds[STAGE_COMPUTE] / sum;
    report->share_write = result->stage_seconds[STAGE_WRITE] / sum;
    report->memory_peak_bytes = usage_peak_rss_bytes();
    report->cgroup_peak_bytes = usage_cgroup_peak_bytes();
    report->io_engine = result->ring_name;
    report->io_direct = result->direct_in && result->direct_out;
    report->kernels = batch->made_count ? batch->made[0]->merge->ops->name : NULL;
    report->threads = batch->memory.thread_count;
    if (batch->made_count)
        describe_device(&batch->machine, report->device, sizeof(report->device));
    report->device_bytes = batch->memory.device_bytes;
    snprintf(report->output, sizeof(report->output), "%s", batch->options.output);
}

/* What the run comes to, once all outputs have ended. */
static int judge(const struct lorafold_batch *batch, struct error *err)
{
    const struct lorafold_batch_report *report = &batch->report;
    size_t listed = 0;
    size_t used;

    if (atomic_load(&batch->stop.cancelled) && report->failed)
        return error_set(err, ERR_CANCELLED,
                         "stopped as asked: %zu of %zu outputs in '%s' are complete, nothing is "
                         "left of the others",
                         report->complete + report->existing, batch->count, batch->options.output);
    if (report->failed == 0)
        return 0;
    error_set(err, ERR_FAILED, "%zu of %zu outputs were not made:", report->failed, batch->count);
    for (size_t i = 0; i < batch->count; i++) {
        const struct batch_output *output = &batch->outputs[i];

        if (output->state != LORAFOLD_OUTPUT_LEFT_OUT && output->state != LORAFOLD_OUTPUT_FAILED)
            continue;
        used = strlen(err->text);
        if (used > sizeof(err->text) - 300) {
            snprintf(err->text + used, sizeof(err->text) - used, " and others");
            break;
        }
        snprintf(err->text + used, sizeof(err->text) - used, "%s '%s'", listed++ ? "," : "",
                 output->name);
    }
    return err->code;
}

int lorafold_batch_run(struct lorafold_batch *batch, struct lorafold_error *err)
{
    struct error inner = { 0 };
    struct error listing = { 0 };
    struct error verdict = { 0 };

    if (!batch->options.output || batch->ran || !batch->made) {
        error_set(&inner, ERR_USAGE, "%s",
                  batch->ran               ? "this batch has run already"
                  : !batch->options.output ? "no output directory is given"
                                           : "this batch is not open");
        return give_error(err, &inner);
    }
    batch->ran = true;
    if (batch->made_count && make_directory(batch, &inner))
        return give_error(err, &inner);
    if (batch->made_count)
        (void)run_pipeline(batch, &inner);
    fill_report(batch);
    if (batch->directory_made && batch->report.complete == 0)
        (void)rmdir(batch->options.output);
    else if (batch->report.complete + batch->report.existing)
        (void)batch_list_update(batch, &listing);
    if (inner.code == 0)
        inner = listing;
    if (judge(batch, &verdict))
        return give_error(err, &verdict);
    return inner.code ? give_error(err, &inner) : 0;
}

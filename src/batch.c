/*
 * batch.c - several outputs in one pass over the base
 *
 * Every output is a merge of its own that shares the open base.
 */
#include "batch.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Descriptors that an output has open: of its work directory, adapters, and one file. */
#define DESCRIPTORS_PER_OUTPUT 7u
#define DESCRIPTORS_BESIDE 64u

/*
 * Memory of an output beside its plan: what merge, pipeline and output directory hold of it, paths,
 * its adapter's configuration.  25 KiB were measured.
 */
#define OUTPUT_BYTES (28 * KIB)

static void write_batch_log(void *context, enum log_level level, const char *sentence)
{
    struct lorafold_batch *batch = context;

    if (batch->options.message)
        batch->options.message(batch->options.context, (enum lorafold_level)level, sentence);
}

/* What is said of one output begins with its name. */
static void write_output_log(void *context, enum log_level level, const char *sentence)
{
    const struct batch_output *output = context;

    log_say(&output->batch->log, level, "output '%s': %s", output->name, sentence);
}

int lorafold_batch_create(struct lorafold_batch **out, const struct lorafold_merge_options *common,
                          unsigned flags, struct lorafold_error *err)
{
    struct lorafold_batch *batch = calloc(1, sizeof(*batch));
    struct error inner = { 0 };

    if (!batch || flags & ~LORAFOLD_SKIP_EXISTING) {
        if (batch)
            error_set(&inner, ERR_USAGE, "a flag of the batch is not known");
        else
            error_no_memory(&inner, "a batch");
        free(batch);
        return give_error(err, &inner);
    }
    batch->opened_at = clock_seconds();
    batch->options = *common;
    batch->skip_existing = flags & LORAFOLD_SKIP_EXISTING;
    batch->log = (struct log){ write_batch_log, batch };
    *out = batch;
    return 0;
}

/* ---- planning ---- */

static void leave_out(struct batch_output *output, const struct error *err)
{
    output->state = LORAFOLD_OUTPUT_LEFT_OUT;
    output->error = *err;
    merge_free(output->merge);
    output->merge = NULL;
    log_say(&output->batch->log, LOG_WARNING, "output '%s' is left out: %s", output->name,
            err->text);
}

static bool is_there(const char *directory, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    return snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path) &&
           lstat(path, &st) == 0;
}

/* The directory that holds all outputs is not one of them. */
static int check_directory(const struct lorafold_batch *batch, struct error *err)
{
    const char *directory = batch->options.output;
    struct stat st;

    if (!directory || stat(directory, &st) < 0)
        return 0;
    if (!S_ISDIR(st.st_mode))
        return error_set(err, ERR_USAGE, "'%s' is not a directory", directory);
    if (is_there(directory, MANIFEST_NAME) || is_there(directory, "config.json"))
        return error_set(err, ERR_USAGE,
                         "'%s' is a model, not a directory for several: give -o another one",
                         directory);
    return 0;
}

/* Without a base, `same` takes the files that adapters name, and others their original. */
static int check_methods(const struct lorafold_batch *batch, struct error *err)
{
    size_t same = 0;

    for (size_t i = 0; i < batch->count; i++)
        same += batch->outputs[i].options.save_method == LORAFOLD_SAME;
    if (same == 0 || same == batch->count || batch->options.base || batch->options.original_base)
        return 0;
    return error_set(err, ERR_USAGE,
                     "save method same keeps the base's files as they are, and for the other "
                     "outputs their 16-bit original may be taken: give BASE");
}

static int plan_output(struct batch_output *output, struct error *err)
{
    struct lorafold_batch *batch = output->batch;
    struct lorafold_merge *merge;

    if (batch->options.output) {
        if (asprintf(&output->path, "%s/%s", batch->options.output, output->name) < 0) {
            output->path = NULL;
            return error_no_memory(err, "a path");
        }
        if (batch->skip_existing && is_there(output->path, MANIFEST_NAME)) {
            output->state = LORAFOLD_OUTPUT_EXISTS;
            return 0;
        }
    }
    merge = calloc(1, sizeof(*merge));
    if (!merge)
        return error_no_memory(err, "a merge");
    output->merge = merge;
    merge->opened_at = batch->opened_at;
    merge->options = output->options;
    /* What it can share with the base depends on the file system: that of a directory there is. */
    if (output->path)
        merge->options.output = is_there(batch->options.output, ".") ? output->path
                                                                     : batch->options.output;
    merge->log = (struct log){ write_output_log, output };
    merge->base = &batch->base;
    if (merge_plan(merge, err))
        return err->code;
    if (output->path &&
        (batch->count > 1 ? clones_check_several(merge, err) : clones_check(merge, err)))
        return err->code;
    merge->options.output = output->path;
    return 0;
}

static uint64_t output_memory(const struct batch_output *output)
{
    return OUTPUT_BYTES + merge_memory(output->merge);
}

/* Have those planned so far, of which `output` is the newest, room in the budget? */
static int check_memory(const struct lorafold_batch *batch, const struct batch_output *output,
                        struct plan_memory *so_far, size_t *fitting, struct error *err)
{
    uint64_t budget = batch->options.memory_bytes;
    uint64_t before = so_far->least_bytes;
    uint64_t base = *fitting ? 0 : base_memory(&batch->base);
    uint64_t more;

    if (plan_add_memory(so_far, &output->merge->plan, base + output_memory(output), err))
        return err->code;
    if (so_far->least_bytes <= budget) {
        (*fitting)++;
        return 0;
    }
    if (*fitting == 0)
        return error_set(err, ERR_USAGE,
                         "--memory of %.1f MiB is too small for output '%s': it needs at least "
                         "%.0f MiB",
                         (double)budget / (double)MIB, output->name,
                         ceil((double)so_far->least_bytes / (double)MIB));
    more = (uint64_t)(&batch->outputs[batch->count] - output) * (so_far->least_bytes - before);
    return error_set(err, ERR_USAGE,
                     "--memory of %.1f MiB is enough for the first %zu of %zu outputs, since "
                     "something of each is held all the time: give some %.0f MiB, or make fewer "
                     "at once",
                     (double)budget / (double)MIB, *fitting, batch->count,
                     ceil((double)(before + more) / (double)MIB));
}

/*
 * One that cannot be made is left out, unless that is for a reason that all share.  More than there
 * is memory for are not planned at all.
 */
static int plan_outputs(struct lorafold_batch *batch, struct error *err)
{
    struct plan_memory so_far = { 0 };
    size_t fitting = 0;

    for (size_t i = 0; i < batch->count; i++) {
        struct batch_output *output = &batch->outputs[i];
        bool given = batch->options.base || batch->options.original_base;
        struct error inner = { 0 };
        bool shared;

        if (plan_output(output, &inner) == 0) {
            if (output->merge && check_memory(batch, output, &so_far, &fitting, err))
                return err->code;
            continue;
        }
        shared = inner.code == ERR_CANCELLED || (given && batch->base.refused);
        if (shared || batch->options.strict) {
            if (!shared)
                error_prefix(&inner, "output '%s'", output->name);
            *err = inner;
            return err->code;
        }
        leave_out(output, &inner);
    }
    return 0;
}

static int compare_texts(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

const char **batch_list_inputs(const struct lorafold_batch *batch, size_t *count)
{
    const char **all = calloc(1, sizeof(*all));
    size_t capacity = 1, total = 0;

    *count = 0;
    for (size_t i = 0; i < batch->count && all; i++) {
        const char **list, **more;
        size_t listed = 0;

        if (!batch->outputs[i].merge)
            continue;
        list = merge_list_inputs(batch->outputs[i].merge, &listed);
        more = all;
        if (total + listed > capacity) {
            capacity = 2 * (total + listed);
            more = realloc(all, capacity * sizeof(*all));
        }
        if (!list || !more) {
            free(list);
            free(all);
            return NULL;
        }
        all = more;
        memcpy(all + total, list, listed * sizeof(*all));
        total += listed;
        free(list);
    }
    if (!all)
        return NULL;
    qsort(all, total, sizeof(*all), compare_texts);
    for (size_t i = 0; i < total; i++) {
        if (*count == 0 || strcmp(all[*count - 1], all[i]) != 0)
            all[(*count)++] = all[i];
    }
    return all;
}

int batch_refuse_link(const struct batch_output *output, struct error *err)
{
    char quoted[QUOTED_BYTES];
    struct stat st;

    if (lstat(output->path, &st) < 0 || !S_ISLNK(st.st_mode))
        return 0;
    return error_set(err, ERR_USAGE,
                     "'%s' is a symbolic link, and what it leads to is not touched: remove the "
                     "link, or give the output another name with --jobs",
                     error_quote(quoted, sizeof(quoted), output->path, strlen(output->path)));
}

/* Can every output be written where it is to be?  Nothing is left out while `inputs` are used. */
static int check_places(struct lorafold_batch *batch, struct error *err)
{
    const char *directory = batch->options.output;
    const char **inputs;
    struct stat st;
    size_t count;
    int status = 0;

    if (!directory)
        return 0;
    inputs = batch_list_inputs(batch, &count);
    if (!inputs)
        return error_no_memory(err, "the list of inputs");
    if (stat(directory, &st) < 0)
        status = outdir_check(directory, false, inputs, count, err);
    for (size_t i = 0; i < batch->count && !status && stat(directory, &st) == 0; i++) {
        struct batch_output *output = &batch->outputs[i];

        if (!output->merge || (batch_refuse_link(output, &output->error) == 0 &&
                               outdir_check(output->path, batch->options.overwrite, inputs, count,
                                            &output->error) == 0))
            continue;
        if (batch->options.strict) {
            *err = output->error;
            status = err->code;
        }
    }
    free(inputs);
    for (size_t i = 0; i < batch->count && !status; i++) {
        const struct error refusal = batch->outputs[i].error;

        if (batch->outputs[i].merge && refusal.code)
            leave_out(&batch->outputs[i], &refusal);
    }
    return status;
}

static int check_space(const struct lorafold_batch *batch, struct error *err)
{
    struct text sizes = { 0 };
    uint64_t available, needed = 0;
    size_t fitting = 0, made = 0;

    if (!batch->options.output)
        return 0;
    if (outdir_free_bytes(batch->options.output, &available, err))
        return err->code;
    for (size_t i = 0; i < batch->count; i++) {
        if (!batch->outputs[i].merge)
            continue;
        needed += merge_disk_bytes(batch->outputs[i].merge);
        made++;
        fitting += needed <= available;
    }
    if (needed <= available)
        return 0;
    text_add_bytes(&sizes, needed);
    text_adds(&sizes, " are needed, ");
    text_add_bytes(&sizes, available);
    text_adds(&sizes, " are free, which is enough for ");
    if (fitting)
        text_addf(&sizes, "the first %zu", fitting);
    else
        text_adds(&sizes, "none of them");
    text_adds(&sizes, ": free some, make fewer, or give -o another place");
    error_set(err, ERR_FAILED, "no space for %zu outputs in '%s': %s", made, batch->options.output,
              sizes.failed ? "" : sizes.data);
    text_release(&sizes);
    return err->code;
}

/* Lists of those that are made. */
static int list_made(struct lorafold_batch *batch, struct error *err)
{
    const struct error *first = NULL;
    size_t existing = 0;

    batch->made = calloc(batch->count + 1, sizeof(*batch->made));
    batch->orders = calloc(batch->count + 1, sizeof(*batch->orders));
    if (!batch->made || !batch->orders)
        return error_no_memory(err, "the outputs");
    for (size_t i = 0; i < batch->count; i++) {
        struct batch_output *output = &batch->outputs[i];

        existing += output->state == LORAFOLD_OUTPUT_EXISTS;
        if (output->state == LORAFOLD_OUTPUT_LEFT_OUT && !first)
            first = &output->error;
        if (!output->merge)
            continue;
        output->number = batch->made_count;
        batch->made[batch->made_count++] = output;
    }
    if (batch->made_count || existing)
        return 0;
    return error_set(err, first->code, "none of the %zu outputs can be made: %s", batch->count,
                     first->text);
}

static int fit_memory(struct lorafold_batch *batch, struct error *err)
{
    const struct plan_budget budget = { .bytes = batch->options.memory_bytes,
                                        .threads = batch->options.threads,
                                        .processors = cpu_count(),
                                        .extra_bytes = base_memory(&batch->base) };
    const struct machine_request request = merge_machine_request(&batch->options);
    struct plan_budget all = budget;
    struct plan **plans;
    int status;

    if (batch->made_count == 0)
        return 0;
    plans = calloc(batch->made_count, sizeof(struct plan *));
    if (!plans)
        return error_no_memory(err, "the plans");
    for (size_t i = 0; i < batch->made_count; i++) {
        plans[i] = &batch->made[i]->merge->plan;
        all.extra_bytes += output_memory(batch->made[i]);
    }
    status = machine_fit(&batch->machine, &request, &batch->memory, plans, batch->made_count, &all,
                         &batch->log, err);
    free(plans);
    return status;
}

/* Every output has files open. */
static int check_descriptors(const struct lorafold_batch *batch, struct error *err)
{
    uint64_t needed = DESCRIPTORS_BESIDE;
    struct rlimit limit;

    for (size_t i = 0; i < batch->made_count; i++) {
        const struct plan *plan = &batch->made[i]->merge->plan;

        needed += DESCRIPTORS_PER_OUTPUT + plan->input_count +
                  (plan->decoded ? plan->shard_count : 0);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= needed)
        return 0;
    return error_set(err, ERR_USAGE,
                     "%zu outputs have up to %" PRIu64 " files open at once, and this process may "
                     "open %" PRIu64 ": raise that with 'ulimit -n', or make fewer at once",
                     batch->made_count, needed, (uint64_t)limit.rlim_cur);
}

static int open_batch(struct lorafold_batch *batch, struct error *err)
{
    if (batch->count == 0)
        return error_set(err, ERR_USAGE, "no output is given");
    if (check_directory(batch, err) || check_methods(batch, err) || plan_outputs(batch, err) ||
        check_places(batch, err) || list_made(batch, err) || check_space(batch, err) ||
        fit_memory(batch, err))
        return err->code;
    return check_descriptors(batch, err);
}

int lorafold_batch_open(struct lorafold_batch *batch, struct lorafold_error *err)
{
    struct error inner = { 0 };

    if (batch->opened) {
        error_set(&inner, ERR_USAGE, "this batch is open already");
        return give_error(err, &inner);
    }
    batch->opened = true;
    if (batch->options.push_to.repo) {
        error_set(&inner, ERR_USAGE,
                  "a push is for one output: push each of several with lorafold push");
        return give_error(err, &inner);
    }
    if (open_batch(batch, &inner))
        return give_error(err, &inner);
    batch->report.seconds_planning = clock_seconds() - batch->opened_at;
    return 0;
}

void lorafold_batch_cancel(struct lorafold_batch *batch)
{
    pipeline_cancel(&batch->stop);
}

size_t lorafold_batch_count(const struct lorafold_batch *batch)
{
    return batch->count;
}

void lorafold_batch_output(const struct lorafold_batch *batch, size_t index,
                           struct lorafold_batch_output *out)
{
    const struct batch_output *output = &batch->outputs[index];

    *out = (struct lorafold_batch_output){ .name = output->name, .state = output->state };
    if (output->merge)
        out->bytes = output->merge->plan.bytes_out;
    if (output->error.code)
        (void)give_error(&out->error, &output->error);
}

void lorafold_batch_report(const struct lorafold_batch *batch, struct lorafold_batch_report *out)
{
    *out = batch->report;
}

void lorafold_batch_close(struct lorafold_batch *batch)
{
    if (!batch)
        return;
    for (size_t i = 0; i < batch->count; i++) {
        outdir_close(batch->outputs[i].outdir);
        merge_free(batch->outputs[i].merge);
        free(batch->outputs[i].path);
    }
    for (size_t i = 0; i < batch->made_count && batch->orders; i++) {
        free(batch->orders[i].digests);
        free(batch->orders[i].cloned);
    }
    machine_close(&batch->machine);
    for (size_t i = 0; i < batch->kept_count; i++)
        free(batch->kept[i]);
    free(batch->kept);
    free(batch->outputs);
    free(batch->orders);
    free(batch->made);
    base_release(&batch->base);
    free(batch);
}

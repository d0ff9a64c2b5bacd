/*
 * fake_library.c - lorafold.h without a model, to test the program alone
 *
 * Linked in place of the library.  The name of the base says how it behaves:
 *   fast       a merge of 1 GB in four steps, with one message of each level
 *   waits      runs until it is cancelled, then fails as cancelled
 *   stubborn   is deaf to cancelling, until standard input ends
 *   planning   lorafold_merge_open() does not return until standard input ends
 *   open-N     lorafold_merge_open() fails with status N
 *   run-N      lorafold_merge_run() fails with status N
 * A plan shows every option as it arrived.  The same names work for verify.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "lorafold.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOTAL_BYTES UINT64_C(1000000000)

struct lorafold_merge {
    struct lorafold_merge_options options;
    volatile int cancelled;
};

static int fail(struct lorafold_error *err, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    return err->code = code;
}

/* The digit N of "prefix-N", or 0. */
static int wanted_status(const char *name, const char *prefix)
{
    size_t bytes = strlen(prefix);

    return name && strncmp(name, prefix, bytes) == 0 && name[bytes] == '-' ? atoi(name + bytes + 1)
                                                                           : 0;
}

static void say(lorafold_message_fn *message, void *context, enum lorafold_level level,
                const char *sentence)
{
    if (message)
        message(context, level, sentence);
}

static void wait_for_input_end(void)
{
    char byte;

    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
}

/* Until something may have changed; no busy loop, and no matter how long. */
static void wait_a_moment(void)
{
    poll(NULL, 0, 10);
}

static int work(const char *name, const volatile int *cancel, lorafold_message_fn *message,
                lorafold_progress_fn *progress, void *context, struct lorafold_error *err)
{
    struct lorafold_progress now = { .bytes_total = TOTAL_BYTES,
                                     .limit = LORAFOLD_LIMIT_WRITE,
                                     .file = "model-00001-of-00002.safetensors" };

    if (wanted_status(name, "run"))
        return fail(err, wanted_status(name, "run"),
                    "the work failed\tin \033[31mred\nand 'quotes'");
    say(message, context, LORAFOLD_WARNING, "a \"warning\"\033[31m");
    say(message, context, LORAFOLD_NOTICE, "work began");
    say(message, context, LORAFOLD_DETAIL, "a detail");
    if (strcmp(name, "stubborn") == 0)
        wait_for_input_end();
    for (int step = 1; step <= 4; step++) {
        now.bytes_done = TOTAL_BYTES / 4 * (uint64_t)step;
        now.seconds = 0.5 * step;
        if (progress)
            progress(context, &now);
        while (strcmp(name, "waits") == 0 && !*cancel)
            wait_a_moment();
        if (*cancel)
            return fail(err, LORAFOLD_CANCELLED, "interrupted, nothing was left behind");
    }
    return 0;
}

void lorafold_merge_options_init(struct lorafold_merge_options *options)
{
    *options = (struct lorafold_merge_options){ .max_shard_bytes = UINT64_C(5000000000),
                                                .memory_bytes = UINT64_C(128) << 20 };
}

int lorafold_merge_open(struct lorafold_merge **out, const struct lorafold_merge_options *options,
                        struct lorafold_error *err)
{
    int status = wanted_status(options->base, "open");

    if (status)
        return fail(err, status, "open failed with status %d", status);
    if (options->base && strcmp(options->base, "planning") == 0) {
        say(options->message, options->context, LORAFOLD_NOTICE, "work began");
        wait_for_input_end();
    }
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return fail(err, LORAFOLD_FAILED, "out of memory");
    (*out)->options = *options;
    return 0;
}

char *lorafold_merge_describe(const struct lorafold_merge *merge, enum lorafold_format format)
{
    const struct lorafold_merge_options *o = &merge->options;
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);

    if (!file)
        return NULL;
    if (format == LORAFOLD_JSON) {
        fprintf(file, "{\"type\":\"plan\",\"adapter_count\":%zu}\n", o->adapter_count);
    } else {
        fprintf(file, "base %s\n", o->base ? o->base : "(none)");
        for (size_t i = 0; i < o->adapter_count; i++)
            fprintf(file, "adapter %s weight %.17g\n", o->adapters[i].path, o->adapters[i].weight);
        fprintf(file, "output %s tokenizer %s\n", o->output ? o->output : "(none)",
                o->tokenizer ? o->tokenizer : "(none)");
        fprintf(file, "dtype %d tied %d shard %llu memory %llu threads %u\n", (int)o->dtype,
                (int)o->tied, (unsigned long long)o->max_shard_bytes,
                (unsigned long long)o->memory_bytes, o->threads);
        fprintf(file, "overwrite %d allow_unused %d allow_nonfinite %d strict %d\n", o->overwrite,
                o->allow_unused, o->allow_nonfinite, o->strict);
        if (o->hub.token_file || o->hub.offline)
            fprintf(file, "token file %s offline %d\n",
                    o->hub.token_file ? o->hub.token_file : "(none)", o->hub.offline);
        if (o->clone)
            fprintf(file, "clone %d\n", (int)o->clone);
        fprintf(file, "io %s direct %s kernels %s\n", o->io_engine ? o->io_engine : "(probe)",
                o->io_direct ? o->io_direct : "(probe)", o->kernels ? o->kernels : "(probe)");
    }
    fclose(file);
    return text;
}

int lorafold_merge_run(struct lorafold_merge *merge, struct lorafold_error *err)
{
    const struct lorafold_merge_options *o = &merge->options;

    return work(o->base ? o->base : "fast", &merge->cancelled, o->message, o->progress, o->context,
                err);
}

void lorafold_merge_cancel(struct lorafold_merge *merge)
{
    static const char sentence[] = "cancel called\n";

    if (write(STDERR_FILENO, sentence, sizeof(sentence) - 1) < 0)
        return;
    if (strcmp(merge->options.base, "stubborn") != 0)
        merge->cancelled = 1;
}

void lorafold_merge_report(const struct lorafold_merge *merge, struct lorafold_report *out)
{
    *out = (struct lorafold_report){ .bytes_written = TOTAL_BYTES };
    snprintf(out->output, sizeof(out->output), "%s", merge->options.output);
}

char *lorafold_report_describe(const struct lorafold_report *report, enum lorafold_format format)
{
    return strdup(format == LORAFOLD_JSON ? "{\"type\":\"report\",\"bytes_written\":1000000000}"
                                          : report->output);
}

void lorafold_merge_close(struct lorafold_merge *merge)
{
    free(merge);
}

/* A batch counts what is added to it, and works as its base says. */
struct lorafold_batch {
    struct lorafold_merge_options options;
    size_t count;
    struct lorafold_merge cancelling;
};

int lorafold_batch_create(struct lorafold_batch **out, const struct lorafold_merge_options *common,
                          unsigned flags, struct lorafold_error *err)
{
    (void)flags;
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return fail(err, LORAFOLD_FAILED, "out of memory");
    (*out)->options = *common;
    return 0;
}

int lorafold_batch_add(struct lorafold_batch *batch, const char *name,
                       const struct lorafold_merge_options *options, struct lorafold_error *err)
{
    (void)name;
    (void)options;
    (void)err;
    batch->count++;
    return 0;
}

int lorafold_batch_add_directory(struct lorafold_batch *batch, const char *directory,
                                 struct lorafold_error *err)
{
    return lorafold_batch_add(batch, directory, NULL, err);
}

int lorafold_batch_add_jobs(struct lorafold_batch *batch, const char *path,
                            struct lorafold_error *err)
{
    return lorafold_batch_add(batch, path, NULL, err);
}

int lorafold_batch_open(struct lorafold_batch *batch, struct lorafold_error *err)
{
    (void)batch;
    (void)err;
    return 0;
}

char *lorafold_batch_describe(const struct lorafold_batch *batch, enum lorafold_format format)
{
    char *text = NULL;

    (void)format;
    return asprintf(&text, "%zu outputs\n", batch->count) < 0 ? NULL : text;
}

int lorafold_batch_run(struct lorafold_batch *batch, struct lorafold_error *err)
{
    const struct lorafold_merge_options *o = &batch->options;

    return work(o->base ? o->base : "fast", &batch->cancelling.cancelled, o->message, o->progress,
                o->context, err);
}

void lorafold_batch_cancel(struct lorafold_batch *batch)
{
    lorafold_merge_cancel(&batch->cancelling);
}

size_t lorafold_batch_count(const struct lorafold_batch *batch)
{
    return batch->count;
}

void lorafold_batch_output(const struct lorafold_batch *batch, size_t index,
                           struct lorafold_batch_output *out)
{
    (void)batch;
    (void)index;
    *out = (struct lorafold_batch_output){ .name = "one" };
}

void lorafold_batch_report(const struct lorafold_batch *batch, struct lorafold_batch_report *out)
{
    *out = (struct lorafold_batch_report){ .output_count = batch->count, .complete = 1 };
}

char *lorafold_batch_summary(const struct lorafold_batch *batch, enum lorafold_format format)
{
    char *text = NULL;

    (void)format;
    return asprintf(&text, "summary of %zu outputs\n", batch->count) < 0 ? NULL : text;
}

void lorafold_batch_close(struct lorafold_batch *batch)
{
    free(batch);
}

void lorafold_verify_options_init(struct lorafold_verify_options *options)
{
    *options = (struct lorafold_verify_options){ .memory_bytes = UINT64_C(128) << 20 };
}

int lorafold_verify(const char *directory, const struct lorafold_verify_options *options,
                    struct lorafold_verify_report *report, struct lorafold_error *err)
{
    *report = (struct lorafold_verify_report){
        .file_count = 2,
        .bytes = TOTAL_BYTES,
        .bytes_shared = options->deep ? TOTAL_BYTES / 4 : 0,
        .bytes_unread = strcmp(directory, "cloned") || options->deep ? 0 : TOTAL_BYTES / 2,
        .seconds = 2
    };
    if (options->base)
        say(options->message, options->context, LORAFOLD_NOTICE, options->base);
    return work(directory, options->cancel, options->message, options->progress, options->context,
                err);
}

void lorafold_fetch_options_init(struct lorafold_fetch_options *options)
{
    *options = (struct lorafold_fetch_options){ 0 };
}

int lorafold_fetch(const char *name, const struct lorafold_fetch_options *options, char **directory,
                   struct lorafold_error *err)
{
    char text[256];
    int status = work(name, options->cancel, options->message, options->progress, options->context,
                      err);

    if (status)
        return status;
    snprintf(text, sizeof(text), "/cache/%s %s %d", name,
             options->hub.token_file ? options->hub.token_file : "(none)", options->hub.offline);
    *directory = strdup(text);
    return 0;
}

void lorafold_push_options_init(struct lorafold_push_options *options)
{
    *options = (struct lorafold_push_options){ 0 };
}

int lorafold_push(const char *directory, const struct lorafold_push_options *options,
                  struct lorafold_push_report *report, struct lorafold_error *err)
{
    const struct lorafold_destination *to = &options->to;
    int status = work(directory, options->cancel, options->message, options->progress,
                      options->context, err);

    if (status)
        return status;
    snprintf(report->repo, sizeof(report->repo), "%s", to->repo);
    snprintf(report->url, sizeof(report->url),
             "%s private %d pr %d %s/%s tags %zu %s data %zu %s %s",
             to->revision ? to->revision : "(main)", to->is_private, to->create_pr,
             to->commit_message ? to->commit_message : "(none)",
             to->commit_description ? to->commit_description : "(none)", to->tag_count,
             to->tag_count ? to->tags[to->tag_count - 1] : "", to->dataset_count,
             to->dataset_count ? to->datasets[0] : "",
             options->hub.token_file ? options->hub.token_file : "(none)");
    return 0;
}

char *lorafold_push_describe(const struct lorafold_push_report *report, enum lorafold_format format)
{
    char text[1024];

    snprintf(text, sizeof(text),
             format == LORAFOLD_JSON ? "{\"type\":\"report\",\"repo\":\"%s\"}" : "%s: %s",
             report->repo, report->url);
    return strdup(text);
}

int lorafold_inspect(const char *path, enum lorafold_format format, bool all_tensors, char **out,
                     struct lorafold_error *err)
{
    if (wanted_status(path, "open"))
        return fail(err, wanted_status(path, "open"), "inspect failed");
    *out = strdup(format == LORAFOLD_JSON ? "{\"type\":\"base\"}\n{\"type\":\"tensor\"}\n"
                  : all_tensors           ? "all tensors\n"
                                          : "an inspection\n");
    return 0;
}

void lorafold_bench_options_init(struct lorafold_bench_options *options)
{
    *options = (struct lorafold_bench_options){ .directory = ".", .file_bytes = UINT64_C(2) << 30 };
}

int lorafold_bench(const struct lorafold_bench_options *options, enum lorafold_format format,
                   char **out, struct lorafold_error *err)
{
    char text[256];

    if (wanted_status(options->directory, "run"))
        return fail(err, wanted_status(options->directory, "run"), "bench failed");
    snprintf(text, sizeof(text),
             format == LORAFOLD_JSON ? "{\"type\":\"bench\",\"directory\":\"%s\",\"file_bytes\":%"
                                       "llu,\"threads\":%u,\"skip\":[%d,%d]}"
                                     : "directory %s file %llu threads %u skip %d %d\n",
             options->directory, (unsigned long long)options->file_bytes, options->threads,
             options->skip_disk, options->skip_kernels);
    *out = strdup(text);
    return 0;
}

void lorafold_free(char *text)
{
    free(text);
}

const char *lorafold_version(void)
{
    return "0.1.0";
}

bool lorafold_parse_size(const char *text, uint64_t *out)
{
    static const struct {
        const char *unit;
        uint64_t bytes;
    } units[] = { { "", 1 },          { "KB", 1000 },    { "MB", 1000000 }, { "GB", 1000000000 },
                  { "MiB", 1 << 20 }, { "GiB", 1 << 30 } };
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || value == 0 || value > 1000000000)
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].unit) == 0) {
            *out = value * units[i].bytes;
            return true;
        }
    }
    return false;
}

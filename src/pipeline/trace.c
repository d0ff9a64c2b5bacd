#include "pipeline/trace.h"

#include "base/clock.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct trace {
    FILE *file;
    pthread_mutex_t mutex;
    double opened;
    unsigned rows[3]; /* of each group that have a name */
};

static const struct {
    const char *name;
    unsigned group;
} kinds[TRACE_KINDS] = {
    [TRACE_READ] = { "read", 0 },         [TRACE_WAIT] = { "wait", 0 },
    [TRACE_WRITE] = { "write", 0 },       [TRACE_COMPUTE] = { "compute", 1 },
    [TRACE_FACTORS] = { "factors", 1 },   [TRACE_HASH] = { "hash", 1 },
    [TRACE_UPLOAD] = { "upload", 2 },     [TRACE_KERNELS] = { "kernels", 2 },
    [TRACE_DOWNLOAD] = { "download", 2 },
};
static const char *const groups[] = { "slot", "worker", "stream" };

#define BEGINNING "{\"displayTimeUnit\":\"ms\",\"traceEvents\":["

/* A file that is there is written over if it is an earlier trace: it may be somebody's weights. */
static bool is_something_else(const char *path)
{
    char begin[sizeof(BEGINNING)] = "";
    FILE *file;
    struct stat st;
    size_t count;

    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0)
        return false;
    file = fopen(path, "re");
    if (!file)
        return true;
    count = fread(begin, 1, sizeof(BEGINNING) - 1, file);
    fclose(file);
    return count < sizeof(BEGINNING) - 1 || memcmp(begin, BEGINNING, count) != 0;
}

int trace_open(struct trace **out, const char *path, struct error *err)
{
    struct trace *trace;

    if (is_something_else(path))
        return error_set(err, ERR_USAGE,
                         "--trace: '%s' is there and is no trace of an earlier run: name another "
                         "file, or remove it",
                         path);
    trace = calloc(1, sizeof(*trace));
    if (!trace)
        return error_no_memory(err, "the trace");
    trace->file = fopen(path, "we");
    if (!trace->file) {
        free(trace);
        error_set_errno(err, "cannot create the trace '%s'", path);
        return err->code = ERR_USAGE;
    }
    pthread_mutex_init(&trace->mutex, NULL);
    trace->opened = clock_seconds();
    fputs(BEGINNING, trace->file);
    for (int i = 0; i < 3; i++)
        fprintf(
            trace->file,
            "%s\n{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%d,\"args\":{\"name\":\"%ss\"}}",
            i ? "," : "", i, groups[i]);
    *out = trace;
    return 0;
}

/* In microseconds, with a point in every locale. */
static void print_time(struct trace *trace, const char *name, double seconds)
{
    uint64_t nanoseconds = seconds > 0 ? (uint64_t)(seconds * 1e9) : 0;

    fprintf(trace->file, ",\"%s\":%" PRIu64 ".%03u", name, nanoseconds / 1000,
            (unsigned)(nanoseconds % 1000));
}

void trace_add(struct trace *trace, enum trace_kind kind, unsigned row, uint64_t block,
               double begin, double end)
{
    unsigned group;

    if (!trace)
        return;
    group = kinds[kind].group;
    pthread_mutex_lock(&trace->mutex);
    for (; trace->rows[group] <= row; trace->rows[group]++)
        fprintf(
            trace->file,
            ",\n{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%u,\"tid\":%u,\"args\":{\"name\":"
            "\"%s %u\"}}",
            group, trace->rows[group], groups[group], trace->rows[group]);
    fprintf(trace->file, ",\n{\"ph\":\"X\",\"name\":\"%s\",\"pid\":%u,\"tid\":%u", kinds[kind].name,
            group, row);
    print_time(trace, "ts", begin - trace->opened);
    print_time(trace, "dur", end - begin);
    if (block != TRACE_NO_BLOCK)
        fprintf(trace->file, ",\"args\":{\"block\":%" PRIu64 "}", block);
    fputs("}", trace->file);
    pthread_mutex_unlock(&trace->mutex);
}

int trace_close(struct trace *trace, struct error *err)
{
    int status = 0;
    int failed;

    if (!trace)
        return 0;
    fputs("\n]}\n", trace->file);
    failed = ferror(trace->file);
    if (fclose(trace->file) || failed)
        status = error_set(err, ERR_FAILED, "cannot write the trace");
    pthread_mutex_destroy(&trace->mutex);
    free(trace);
    return status;
}

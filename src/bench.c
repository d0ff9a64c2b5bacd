/*
 * bench.c - what this machine can do: disk, memory, kernels
 *
 * The disk figures use the same ring, pool and direct I/O as a merge, so "copy"
 * is the rate that a merge can reach at best.
 */
#include "bench.h"
#include "gpu/gpu.h"

#include "io/file.h"
#include "io/pool.h"
#include "io/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 8u
#define FILE_BYTES_DEFAULT (2 * GIB)
#define FILE_BYTES_MIN (64 * MIB)

void lorafold_bench_options_init(struct lorafold_bench_options *options)
{
    *options = (struct lorafold_bench_options){ .directory = ".",
                                                .file_bytes = FILE_BYTES_DEFAULT };
}

/* One transfer of a whole file: read only, write only, or read then write (copy). */
struct transfer {
    struct ring *ring;
    uint8_t *memory;
    const struct file *from; /* or NULL */
    const struct file *to;   /* or NULL */
    uint64_t bytes;          /* a multiple of PLAN_BLOCK_BYTES */
    uint64_t next;
    unsigned in_flight;
    const struct lorafold_bench_options *options;
};

static bool cancelled(const struct lorafold_bench_options *options)
{
    return options->cancel && *options->cancel;
}

static void start_next(struct transfer *transfer, struct ring_request *request)
{
    void *memory = request->memory;

    if (transfer->next == transfer->bytes || cancelled(transfer->options))
        return;
    *request = (struct ring_request){ .operation = transfer->from ? RING_READ : RING_WRITE,
                                      .file = transfer->from ? transfer->from : transfer->to,
                                      .memory = memory,
                                      .bytes = PLAN_BLOCK_BYTES,
                                      .bytes_needed = PLAN_BLOCK_BYTES,
                                      .offset = transfer->next };
    transfer->next += PLAN_BLOCK_BYTES;
    transfer->in_flight++;
    ring_submit(transfer->ring, request);
}

static int run_transfer(struct transfer *transfer, struct error *err)
{
    struct ring_request requests[SLOTS];
    struct ring_request *done;
    int failed = 0;

    for (unsigned i = 0; i < SLOTS; i++) {
        requests[i] = (struct ring_request){ .memory = transfer->memory + i * PLAN_BLOCK_BYTES };
        start_next(transfer, &requests[i]);
    }
    while (transfer->in_flight > 0) {
        if (ring_wait(transfer->ring, &done, err))
            return err->code;
        if (!done)
            continue;
        transfer->in_flight--;
        if (done->status && !failed)
            failed = done->status;
        if (failed)
            continue;
        if (done->operation == RING_READ && transfer->to) {
            done->operation = RING_WRITE;
            done->file = transfer->to;
            done->done = 0;
            transfer->in_flight++;
            ring_submit(transfer->ring, done);
        } else {
            start_next(transfer, done);
        }
    }
    if (failed) {
        errno = failed;
        return error_set_errno(err, "the test file cannot be %s",
                               transfer->from ? "read" : "written");
    }
    return cancelled(transfer->options) ? error_set(err, ERR_CANCELLED, "cancelled") : 0;
}

/* Seconds of one transfer, with the sync of what was written. */
static int time_transfer(struct transfer *transfer, double *seconds, struct error *err)
{
    double started = clock_seconds();

    if (run_transfer(transfer, err))
        return err->code;
    if (transfer->to && file_sync(transfer->to, err))
        return err->code;
    *seconds = clock_seconds() - started;
    return 0;
}

struct disk_files {
    int directory;
    struct file file[2];
    struct file from; /* the first one again, to read */
};

/* The name goes as soon as the file is open, so that nothing is left however the process ends. */
static int make_file(struct disk_files *files, const char *directory, int index, uint64_t bytes,
                     struct error *err)
{
    char name[64];
    char path[4096];
    int status;

    snprintf(name, sizeof(name), ".lorafold-bench-%ld-%d", (long)getpid(), index);
    if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path))
        return error_set(err, ERR_USAGE, "'%s' is too long a path", directory);
    if (file_create_output(files->directory, name, bytes, err))
        return err->code;
    status = file_open_output(&files->file[index], files->directory, name, FILE_DIRECT_AUTO, err);
    if (!status && index == 0)
        status = file_open_input(&files->from, path, FILE_DIRECT_AUTO, err);
    unlinkat(files->directory, name, 0);
    return status;
}

static void close_files(struct disk_files *files)
{
    file_close(&files->file[0]);
    file_close(&files->file[1]);
    file_close(&files->from);
    close(files->directory);
}

static int measure_disk(const struct lorafold_bench_options *options, struct transfer *transfer,
                        struct disk_files *files, struct bench_result *result, struct error *err)
{
    if (make_file(files, options->directory, 0, transfer->bytes, err))
        return err->code;
    transfer->to = &files->file[0];
    if (time_transfer(transfer, &result->write_seconds, err))
        return err->code;
    result->direct = files->from.direct && files->file[0].direct;
    transfer->from = &files->from;
    transfer->to = NULL;
    transfer->next = 0;
    if (time_transfer(transfer, &result->read_seconds, err) ||
        make_file(files, options->directory, 1, transfer->bytes, err))
        return err->code;
    transfer->to = &files->file[1];
    transfer->next = 0;
    return time_transfer(transfer, &result->copy_seconds, err);
}

/* What transfers, and why nothing faster does. */
static void tell_engine(const struct lorafold_bench_options *options, const struct ring *ring)
{
    const char *reason = ring_reason(ring);
    char sentence[512];

    snprintf(sentence, sizeof(sentence), "I/O: %s%s%s%s", ring_name(ring), *reason ? " (" : "",
             reason, *reason ? ")" : "");
    if (options->message)
        options->message(options->context, LORAFOLD_DETAIL, sentence);
}

int bench_disk(const struct lorafold_bench_options *options, struct bench_result *result,
               struct error *err)
{
    struct transfer transfer = { .options = options,
                                 .bytes = align_up(options->file_bytes, PLAN_BLOCK_BYTES) };
    struct disk_files files = { .file = { FILE_CLOSED, FILE_CLOSED }, .from = FILE_CLOSED };
    struct pool pool = { 0 };
    int status;

    files.directory = open(options->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (files.directory < 0) {
        error_set_errno(err, "cannot use '%s'", options->directory);
        return err->code = ERR_USAGE;
    }
    status = pool_open(&pool, SLOTS * PLAN_BLOCK_BYTES, true, err);
    if (!status)
        status = ring_open(&transfer.ring, RING_AUTO, 2 * SLOTS, err);
    if (!status) {
        tell_engine(options, transfer.ring);
        transfer.memory = pool.memory;
        /* Zeros may be compressed or deduplicated by a clever disk. */
        for (size_t i = 0; i + 8 <= pool.bytes; i += 8) {
            uint64_t value = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);

            memcpy(pool.memory + i, &value, 8);
        }
        result->file_bytes = transfer.bytes;
        snprintf(result->io_engine, sizeof(result->io_engine), "%s", ring_name(transfer.ring));
        result->huge_pages = pool.huge_bytes >= pool.bytes / 2;
        status = measure_disk(options, &transfer, &files, result, err);
    }
    ring_close(transfer.ring);
    close_files(&files);
    pool_close(&pool);
    return status;
}

static double rate(uint64_t bytes, double seconds)
{
    return seconds > 0 ? (double)bytes / seconds / 1e9 : 0;
}

static void add_device(const struct bench_result *result, struct text *out)
{
    const struct bench_device_result *device = &result->device;

    if (!device->name[0]) {
        if (result->no_device[0])
            text_addf(out, "gpu       none: %s\n", result->no_device);
        return;
    }
    text_addf(out, "gpu       %s: --gpu-memory would be ", device->name);
    describe_mib(out, device->free_bytes / 4 * 3);
    text_addf(out, "\nlink      pinned %.1f GB/s up, %.1f down; pageable %.1f up, %.1f down\n",
              device->pinned_up / 1e9, device->pinned_down / 1e9, device->pageable_up / 1e9,
              device->pageable_down / 1e9);
    for (size_t i = 0; i < device->kernel_count; i++) {
        /* Each element of bf16 is read and written. */
        double rate = device->kernels[i].elements_rate * 4;

        text_addf(out, "gpu fold  rank %-3u %6.2f G elements/s, %.0f GB/s of its memory",
                  device->kernels[i].rank, device->kernels[i].elements_rate / 1e9, rate / 1e9);
        if (device->memory_rate > 0)
            text_addf(out, ", %.0f %% of its data sheet", 100 * rate / device->memory_rate);
        text_adds(out, "\n");
    }
}

static void add_device_json(const struct bench_result *result, struct text *out)
{
    const struct bench_device_result *device = &result->device;

    if (!device->name[0]) {
        describe_key_text(out, "no_gpu", result->no_device);
        return;
    }
    text_adds(out, ",\"gpu\":{\"name\":");
    text_add_json(out, device->name, strlen(device->name));
    describe_key_number(out, "free_bytes", device->free_bytes);
    text_addf(out,
              ",\"memory_bytes_per_second\":%.0f,\"pinned_up\":%.0f,\"pinned_down\":%.0f"
              ",\"pageable_up\":%.0f,\"pageable_down\":%.0f,\"fold\":[",
              device->memory_rate, device->pinned_up, device->pinned_down, device->pageable_up,
              device->pageable_down);
    for (size_t i = 0; i < device->kernel_count; i++)
        text_addf(out, "%s{\"rank\":%u,\"elements_per_second\":%.0f}", i ? "," : "",
                  device->kernels[i].rank, device->kernels[i].elements_rate);
    text_adds(out, "]}");
}

#define DEVICE_ROWS 65536u /* 512 MiB of bf16: several times what the cache of a GPU keeps */
#define DEVICE_RUNS 20u

/* A GPU is measured where there is one. */
static int measure_device(struct bench_result *result, struct error *err)
{
    if (gpu_cuda_count(result->no_device, sizeof(result->no_device)) == 0)
        return 0;
    return bench_device(&gpu_cuda, DEVICE_ROWS, DEVICE_RUNS, &result->device, err);
}

static void describe_text(const struct bench_result *result, struct text *out)
{
    if (result->file_bytes) {
        text_addf(out, "disk      read %.2f GB/s, write %.2f GB/s, copy %.2f GB/s (a file of ",
                  rate(result->file_bytes, result->read_seconds),
                  rate(result->file_bytes, result->write_seconds),
                  rate(result->file_bytes, result->copy_seconds));
        text_add_bytes(out, result->file_bytes);
        text_addf(out, ", %s, %s I/O, %s pages)\n", result->io_engine,
                  result->direct ? "direct" : "buffered", result->huge_pages ? "huge" : "4 KiB");
    }
    if (result->memory_rate > 0)
        text_addf(out, "memory    copy %.1f GB/s with %u threads\n", result->memory_rate / 1e9,
                  result->threads);
    add_device(result, out);
    for (size_t i = 0; i < result->kernel_count; i++)
        text_addf(out,
                  "kernel    rank %-3u %6.2f G elements/s, %6.2f GB/s of bf16 weights (%s, %u "
                  "threads)\n",
                  result->kernels[i].rank, result->kernels[i].elements_rate / 1e9,
                  result->kernels[i].elements_rate * 2 / 1e9, result->kernel_name, result->threads);
}

static void describe_json(const struct bench_result *result, struct text *out)
{
    text_addf(out, "{\"type\":\"bench\",\"threads\":%u", result->threads);
    if (result->file_bytes)
        text_addf(out,
                  ",\"disk\":{\"bytes\":%llu,\"read_seconds\":%.6f,\"write_seconds\":%.6f,"
                  "\"copy_seconds\":%.6f,\"io_engine\":\"%s\",\"direct\":%s,\"huge_pages\":%s}",
                  (unsigned long long)result->file_bytes, result->read_seconds,
                  result->write_seconds, result->copy_seconds, result->io_engine,
                  result->direct ? "true" : "false", result->huge_pages ? "true" : "false");
    if (result->memory_rate > 0)
        text_addf(out, ",\"memory_copy_bytes_per_second\":%.0f", result->memory_rate);
    add_device_json(result, out);
    text_addf(out, ",\"kernels\":[");
    for (size_t i = 0; i < result->kernel_count; i++)
        text_addf(out, "%s{\"name\":\"%s\",\"rank\":%u,\"elements_per_second\":%.0f}", i ? "," : "",
                  result->kernel_name, result->kernels[i].rank, result->kernels[i].elements_rate);
    text_adds(out, "]}\n");
}

int lorafold_bench(const struct lorafold_bench_options *options, enum lorafold_format format,
                   char **out, struct lorafold_error *err)
{
    struct bench_result result = { .threads = options->threads ? options->threads : cpu_count() };
    struct error inner = { 0 };
    struct text text = { 0 };
    int status = 0;

    if (options->file_bytes < FILE_BYTES_MIN)
        status = error_set(&inner, ERR_USAGE,
                           "a test file of %llu bytes is below the least of "
                           "%llu MiB",
                           (unsigned long long)options->file_bytes,
                           (unsigned long long)(FILE_BYTES_MIN / MIB));
    if (!status && !options->skip_disk)
        status = bench_disk(options, &result, &inner);
    if (!status && !options->skip_kernels)
        status = bench_kernels(options, &result, &inner);
    if (!status && !options->skip_kernels)
        status = measure_device(&result, &inner);
    if (status)
        return give_error(err, &inner);
    if (format == LORAFOLD_JSON)
        describe_json(&result, &text);
    else
        describe_text(&result, &text);
    *out = text_take(&text);
    if (*out)
        return 0;
    error_no_memory(&inner, "the text");
    return give_error(err, &inner);
}

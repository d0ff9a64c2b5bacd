/* bench_device.c - the first GPU: its link both ways, and the fold on data that lie there */
#include "bench.h"

#include "base/bytes.h"
#include "gpu/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COPY_BYTES (32 * MIB)
#define COLS 4096u
#define RANK_MAX 128u

static const unsigned ranks[] = { 0, 8, 16, 32, 64, 128 }; /* 0: what the memory gives */

struct bench_device {
    const struct device_ops *ops;
    uint64_t rows;
    unsigned runs;
    struct device *device;
    struct device_stream *stream;
    uint8_t *pinned;
    uint8_t *pageable;
    void *weights;
    void *a;
    void *b;
};

/* Bytes per second of transfers. */
static int time_copies(const struct bench_device *bench, uint8_t *host, bool up, double *rate,
                       struct error *err)
{
    const struct device_ops *ops = bench->ops;

    if (ops->mark(bench->stream, 0, err))
        return err->code;
    for (unsigned i = 0; i < bench->runs; i++) {
        if (up ? ops->upload(bench->stream, bench->weights, host, COPY_BYTES, err)
               : ops->download(bench->stream, host, bench->weights, COPY_BYTES, err))
            return err->code;
    }
    if (ops->mark(bench->stream, 1, err) || ops->wait(bench->stream, 1, err))
        return err->code;
    *rate = (double)bench->runs * COPY_BYTES / ops->seconds(bench->stream, 0, 1);
    return 0;
}

static struct device_task fold_task(const struct bench_device *bench, unsigned rank)
{
    struct device_task task = { .op = DEVICE_FOLD };

    task.fold.segment = (struct fold_segment){ .src = bench->weights,
                                               .dst = bench->weights,
                                               .src_dtype = DTYPE_BF16,
                                               .dst_dtype = DTYPE_BF16,
                                               .cols = COLS,
                                               .count = bench->rows * COLS,
                                               .delta_count = rank > 0 };
    task.fold.deltas[0] = (struct fold_delta){ bench->a, bench->b, rank, 0.5f };
    return task;
}

static int time_kernel(const struct bench_device *bench, unsigned rank, double *rate,
                       struct error *err)
{
    const struct device_task task = fold_task(bench, rank);
    const struct device_ops *ops = bench->ops;

    if (ops->run(bench->stream, &task, err) || ops->mark(bench->stream, 0, err))
        return err->code;
    for (unsigned i = 0; i < bench->runs; i++) {
        if (ops->run(bench->stream, &task, err))
            return err->code;
    }
    if (ops->mark(bench->stream, 1, err) || ops->wait(bench->stream, 1, err))
        return err->code;
    *rate = (double)bench->runs * (double)bench->rows * COLS / ops->seconds(bench->stream, 0, 1);
    return 0;
}

/*
 * Numbers between 2^-7 and 2^-6 as fp32 and as two of bf16, of any sign.  Not zeros: bits that
 * never change take less power, and a GPU runs faster then.
 */
static void make_numbers(uint8_t *bytes, size_t count)
{
    uint32_t *words = (uint32_t *)(void *)bytes;
    uint32_t random = 1;

    for (size_t i = 0; i < count / sizeof(*words); i++) {
        random ^= random << 13; /* xorshift32 */
        random ^= random >> 17;
        random ^= random << 5;
        words[i] = (random & 0x807f807fu) | 0x3c003c00u;
    }
}

static int fill(const struct bench_device *bench, void *memory, size_t bytes, struct error *err)
{
    for (size_t done = 0; done < bytes; done += COPY_BYTES) {
        size_t part = bytes - done < COPY_BYTES ? bytes - done : COPY_BYTES;

        if (bench->ops->upload(bench->stream, (uint8_t *)memory + done, bench->pinned, part, err))
            return err->code;
    }
    return 0;
}

static int take(struct bench_device *bench, struct error *err)
{
    const struct device_ops *ops = bench->ops;
    size_t weight_bytes = max_u64(bench->rows * COLS * sizeof(uint16_t), COPY_BYTES);
    size_t a_bytes = (size_t)RANK_MAX * COLS * sizeof(float);
    size_t b_bytes = RANK_MAX * bench->rows * sizeof(float);
    void *pinned;

    bench->pageable = calloc(1, COPY_BYTES);
    if (!bench->pageable)
        return error_no_memory(err, "the measurement of the device");
    make_numbers(bench->pageable, COPY_BYTES);
    if (ops->stream(bench->device, &bench->stream, err) ||
        ops->take_pinned(bench->device, &pinned, COPY_BYTES, err) ||
        ops->take(bench->device, &bench->weights, weight_bytes, err) ||
        ops->take(bench->device, &bench->a, a_bytes, err) ||
        ops->take(bench->device, &bench->b, b_bytes, err))
        return err->code;
    bench->pinned = pinned;
    make_numbers(bench->pinned, COPY_BYTES);
    if (fill(bench, bench->weights, weight_bytes, err) || fill(bench, bench->a, a_bytes, err))
        return err->code;
    return fill(bench, bench->b, b_bytes, err);
}

static int measure(struct bench_device *bench, struct bench_device_result *result,
                   struct error *err)
{
    if (take(bench, err) || time_copies(bench, bench->pinned, true, &result->pinned_up, err) ||
        time_copies(bench, bench->pinned, false, &result->pinned_down, err) ||
        time_copies(bench, bench->pageable, true, &result->pageable_up, err) ||
        time_copies(bench, bench->pageable, false, &result->pageable_down, err))
        return err->code;
    for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
        result->kernels[i].rank = ranks[i];
        if (time_kernel(bench, ranks[i], &result->kernels[i].elements_rate, err))
            return err->code;
        result->kernel_count++;
    }
    return 0;
}

int bench_device(const struct device_ops *ops, uint64_t rows, unsigned runs,
                 struct bench_device_result *result, struct error *err)
{
    struct bench_device bench = { .ops = ops, .rows = rows, .runs = runs };
    struct device_info info;
    int status = ops->open(&bench.device, 0, err);

    if (status)
        return status;
    ops->describe(bench.device, &info);
    snprintf(result->name, sizeof(result->name), "%s (%s)", info.name, info.description);
    result->free_bytes = info.free_bytes;
    result->memory_rate = info.memory_rate;
    status = measure(&bench, result, err);
    ops->close(bench.device);
    free(bench.pageable);
    return status;
}

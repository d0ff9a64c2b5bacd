#include "bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define COLS 4096u
#define ROWS 512u   /* of one pass: 4 MiB of bf16, one block */
#define BLOCKS 8u   /* per thread, so that weights come from memory and not from the cache */
#define SECONDS 0.3 /* of each measurement */
#define RANK_MAX 128u
#define THREADS_MAX 256u

static const unsigned ranks[] = { 8, 16, 32, 64, 128 };

struct kernel_thread {
    pthread_t thread;
    const struct fold_ops *ops; /* NULL: copy memory */
    const float *a;
    const float *b;
    uint16_t *weights; /* BLOCKS * ROWS * COLS */
    unsigned rank;
    uint64_t elements; /* done */
    bool started;
};

static void pass(struct kernel_thread *thread, uint64_t block)
{
    uint16_t *weights = thread->weights + block * ROWS * COLS;
    const struct fold_delta delta = { thread->a, thread->b, thread->rank, 0.5f };
    const struct fold_segment segment = { .src = weights,
                                          .dst = weights,
                                          .src_dtype = DTYPE_BF16,
                                          .dst_dtype = DTYPE_BF16,
                                          .cols = COLS,
                                          .count = (size_t)ROWS * COLS,
                                          .deltas = &delta,
                                          .delta_count = 1 };

    if (thread->ops)
        (void)thread->ops->fold(&segment);
    else
        memcpy(weights, thread->weights + (block + BLOCKS / 2) % BLOCKS * ROWS * COLS,
               (size_t)ROWS * COLS * sizeof(*weights));
    thread->elements += (uint64_t)ROWS * COLS;
}

static void *thread_main(void *argument)
{
    struct kernel_thread *thread = argument;
    struct fold_environment environment;
    double end = clock_seconds() + SECONDS;

    fold_environment_enter(&environment);
    for (uint64_t block = 0; clock_seconds() < end; block = (block + 1) % BLOCKS)
        pass(thread, block);
    fold_environment_leave(&environment);
    return NULL;
}

/* Elements per second of all threads together. */
static double measure(struct kernel_thread *threads, unsigned count, const struct fold_ops *ops,
                      unsigned rank)
{
    double started = clock_seconds();
    uint64_t elements = 0;

    for (unsigned i = 0; i < count; i++) {
        threads[i].ops = ops;
        threads[i].rank = rank;
        threads[i].elements = 0;
        threads[i].started = pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]) ==
                             0;
    }
    for (unsigned i = 0; i < count; i++) {
        if (threads[i].started)
            pthread_join(threads[i].thread, NULL);
        elements += threads[i].elements;
    }
    return (double)elements / (clock_seconds() - started);
}

/* Small factors, so that weights folded many times stay finite. */
static void fill(float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((int)(i * 2654435761u >> 20) % 201 - 100) * 1e-6f;
}

int bench_kernels(const struct lorafold_bench_options *options, struct bench_result *result,
                  struct error *err)
{
    const struct fold_ops *ops = cpu_fold_find(NULL);
    unsigned count = result->threads < THREADS_MAX ? result->threads : THREADS_MAX;
    size_t weight_bytes = (size_t)BLOCKS * ROWS * COLS * sizeof(uint16_t);
    struct kernel_thread *threads = calloc(count, sizeof(*threads));
    float *a = aligned_alloc(64, (size_t)RANK_MAX * COLS * sizeof(*a));
    float *b = aligned_alloc(64, (size_t)RANK_MAX * ROWS * sizeof(*b));
    uint8_t *weights = calloc(count, weight_bytes);
    int status = 0;

    if (!threads || !a || !b || !weights) {
        status = error_no_memory(err, "the kernel measurement");
        goto out;
    }
    fill(a, (size_t)RANK_MAX * COLS);
    fill(b, (size_t)RANK_MAX * ROWS);
    memset(weights, 0x3c, count * weight_bytes); /* finite in bf16 */
    for (unsigned i = 0; i < count; i++) {
        threads[i].a = a;
        threads[i].b = b;
        threads[i].weights = (uint16_t *)(weights + i * weight_bytes);
    }
    result->memory_rate = measure(threads, count, NULL, 0) * sizeof(uint16_t);
    result->kernel_name = ops->name;
    for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
        if (options->cancel && *options->cancel) {
            status = error_set(err, ERR_CANCELLED, "cancelled");
            goto out;
        }
        result->kernels[i].rank = ranks[i];
        result->kernels[i].elements_rate = measure(threads, count, ops, ranks[i]);
        result->kernel_count++;
    }
out:
    free(threads);
    free(a);
    free(b);
    free(weights);
    return status;
}

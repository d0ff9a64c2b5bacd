/*
 * bench_kernels.c - elements per second of fold(), BF16 to BF16 in place, with one delta
 *
 * usage: bench_kernels [TABLE [RANK]]
 *
 * "cache" folds one buffer that stays in L2: what the kernel can do.  "memory" folds 4 MiB blocks
 * of 256 MiB, the blocks taken by the threads in turn: what a merge asks for.  "model" is
 * what a Zen 4 core was measured to reach on one thread: 0.20 ns + rank / 55e9 s for an element.
 *
 * Rates are per second of processor time, times the threads: on an idle machine that is the clock,
 * on a shared one it leaves out the time that others had the processor.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "base/bytes.h"
#include "compute/fold.h"
#include "cpu/cpu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define COLS 8192u
#define CACHE_COLS 1024u
#define CACHE_ROWS 120u /* 240 KiB of W */
#define MEMORY_BYTES (256 * MIB)
#define BLOCK_BYTES (4 * MIB)
#define BLOCK_ROWS (BLOCK_BYTES / 2 / COLS)
#define RANK_MAX 256u
#define RUNS 9 /* the fastest counts: the machine is shared */
#define THREADS_MAX 256u

struct bench {
    const struct fold_ops *ops;
    uint16_t *w;
    const float *a;
    const float *b;
    uint32_t rank; /* 0: a conversion */
    atomic_size_t next_block;
    bool in_cache;
};

/* Processor time of all threads. */
static double processor_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fold_block(const struct bench *bench, uint16_t *w, uint64_t rows, uint64_t cols)
{
    struct fold_delta delta = { bench->a, bench->b, bench->rank, 0.75f };
    struct fold_segment segment = {
        .src = w,
        .dst = w,
        .src_dtype = DTYPE_BF16,
        .dst_dtype = DTYPE_BF16,
        .cols = cols,
        .count = rows * cols,
        .deltas = &delta,
        .delta_count = bench->rank ? 1 : 0,
    };

    if (bench->ops->fold(&segment) != FOLD_FINITE) {
        fprintf(stderr, "bench_kernels: a result is not finite\n");
        exit(1);
    }
}

static void *memory_worker(void *arg)
{
    struct bench *bench = arg;
    size_t block;

    while ((block = atomic_fetch_add(&bench->next_block, 1)) < MEMORY_BYTES / BLOCK_BYTES)
        fold_block(bench, bench->w + block * BLOCK_ROWS * COLS, BLOCK_ROWS, COLS);
    return NULL;
}

/* Passes that take some milliseconds. */
static unsigned cache_repeats(const struct bench *bench)
{
    return 4 + 2000 / (bench->rank + 8);
}

/* Each thread folds a buffer of its own again and again. */
static void *cache_worker(void *arg)
{
    struct bench *bench = arg;
    size_t index = atomic_fetch_add(&bench->next_block, 1);

    for (unsigned i = 0; i < cache_repeats(bench); i++)
        fold_block(bench, bench->w + index * CACHE_ROWS * CACHE_COLS, CACHE_ROWS, CACHE_COLS);
    return NULL;
}

/* Elements per second of one run. */
static double run(struct bench *bench, unsigned threads)
{
    void *(*worker)(void *) = bench->in_cache ? cache_worker : memory_worker;
    pthread_t ids[THREADS_MAX];
    uint64_t elements = MEMORY_BYTES / sizeof(uint16_t);
    double start = processor_s();

    if (bench->in_cache)
        elements = (uint64_t)CACHE_ROWS * CACHE_COLS * threads * cache_repeats(bench);
    atomic_store(&bench->next_block, 0);
    for (unsigned i = 1; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, worker, bench) != 0) {
            fprintf(stderr, "bench_kernels: cannot start a thread\n");
            exit(1);
        }
    }
    worker(bench);
    for (unsigned i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
    return (double)elements * threads / (processor_s() - start);
}

static double best_of(struct bench *bench, unsigned threads, bool in_cache)
{
    double best = 0;

    bench->in_cache = in_cache;
    for (int i = 0; i <= RUNS; i++) {
        double rate = run(bench, threads);

        if (i > 0 && rate > best) /* the first warms up */
            best = rate;
    }
    return best;
}

static void report(struct bench *bench, const char *table, unsigned threads)
{
    static const uint32_t ranks[] = { 0, 8, 16, 32, 64, 128, 256 };

    for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
        uint32_t rank = ranks[i];
        double model = 1e-9 / (0.20e-9 + rank / 55e9);
        double cache;
        double memory;

        if (table && rank != (uint32_t)strtoul(table, NULL, 10))
            continue;
        bench->rank = rank;
        cache = 1e-9 * best_of(bench, threads, true);
        memory = 1e-9 * best_of(bench, threads, false);
        printf("%-7s %3u threads  r %3u  cache %7.3f Gelem/s %7.1f GFLOP/s  memory %7.3f Gelem/s "
               "%7.1f GFLOP/s",
               bench->ops->name, threads, rank, cache, cache * 2 * rank, memory, memory * 2 * rank);
        if (threads == 1)
            printf("  model %6.3f  cache/model %.2f", model, cache / model);
        putchar('\n');
        fflush(stdout);
    }
}

static void *huge_pages(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        fprintf(stderr, "bench_kernels: out of memory\n");
        exit(1);
    }
    madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
}

/* Values within +-limit, the same on every machine. */
static float next_value(uint64_t *state, float limit)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return ((float)(*state * UINT64_C(0x2545f4914f6cdd1d) >> 40) / (1 << 23) - 1.0f) * limit;
}

int main(int argc, char **argv)
{
    uint64_t state = 1;
    float *a = huge_pages(sizeof(float) * RANK_MAX * COLS);
    float *b = huge_pages(sizeof(float) * RANK_MAX * BLOCK_ROWS);
    struct bench bench = { .w = huge_pages(MEMORY_BYTES), .a = a, .b = b };
    unsigned threads = cpu_count() < THREADS_MAX ? cpu_count() : THREADS_MAX;

    for (size_t i = 0; i < (size_t)RANK_MAX * COLS; i++)
        a[i] = next_value(&state, 0.01f);
    for (size_t i = 0; i < (size_t)RANK_MAX * BLOCK_ROWS; i++)
        b[i] = next_value(&state, 0.01f);
    for (size_t i = 0; i < MEMORY_BYTES / 2; i++) {
        float w = next_value(&state, 0.04f);
        uint32_t bits;

        memcpy(&bits, &w, sizeof(bits));
        bench.w[i] = (uint16_t)(bits >> 16);
    }
    for (const struct fold_ops *const *table = cpu_fold_available(); *table; table++) {
        bench.ops = *table;
        if (argc > 1 ? strcmp(argv[1], (*table)->name) != 0 : *table == &fold_scalar)
            continue;
        report(&bench, argc > 2 ? argv[2] : NULL, 1);
        if (threads > 1)
            report(&bench, argc > 2 ? argv[2] : NULL, threads);
    }
    return 0;
}

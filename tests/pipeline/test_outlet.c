/*
 * test_outlet.c - files that leave their directory while others are made
 *
 * Never are more files there than the outlet lets begin, their digests are known when
 * they are finished, and they are the bytes of a run without an outlet; a run that is held
 * can be cancelled.
 */
#include "check.h"
#include "cpu/cpu.h"
#include "pipeline/made_edits.h"
#include "pipeline/pipeline.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#define BUDGET_BYTES (UINT64_C(128) << 20)
#define FILES_AT_ONCE 2u

/* What takes finished files away, on a thread of its own. */
struct taker {
    const struct plan *plan;
    int directory_fd;
    int alone_fd; /* the same files, made before */
    struct pipeline_stop *stop;
    pthread_t thread;
    sem_t finished;        /* one for each */
    sem_t held;            /* the outlet has said no */
    _Atomic uint32_t gone; /* files */
    uint32_t last;         /* that was finished; written before `finished` is posted */
    uint32_t begun;
    unsigned refusals;
};

static unsigned count_shards(int directory_fd)
{
    DIR *stream = fdopendir(openat(directory_fd, ".", O_RDONLY | O_DIRECTORY));
    const struct dirent *entry;
    unsigned count = 0;

    CHECK(stream, "the directory cannot be listed");
    while ((entry = readdir(stream)))
        count += strncmp(entry->d_name, "model", 5) == 0;
    closedir(stream);
    return count;
}

static bool may_begin(void *context, uint32_t file)
{
    struct taker *taker = context;

    CHECK(file == taker->begun, "file %u is asked for after %u", file, taker->begun);
    CHECK(count_shards(taker->directory_fd) <= FILES_AT_ONCE, "too many files");
    if (file >= taker->gone + FILES_AT_ONCE) {
        taker->refusals++;
        sem_post(&taker->held);
        return false;
    }
    taker->begun++;
    return true;
}

static uint8_t *read_all(int directory_fd, const char *name, uint64_t bytes)
{
    int fd = openat(directory_fd, name, O_RDONLY);
    uint8_t *content = malloc(bytes + 1);

    CHECK(fd >= 0 && content, "%s", name);
    CHECK(read(fd, content, bytes + 1) == (ssize_t)bytes, "%s has not %llu bytes", name,
          (unsigned long long)bytes);
    close(fd);
    return content;
}

static void note_finished(void *context, uint32_t file, const uint64_t (*digests)[2])
{
    struct taker *taker = context;
    const struct plan_file *of = &taker->plan->files[file];
    uint8_t *content = read_all(taker->directory_fd, of->name, of->bytes);
    uint8_t *wanted = read_all(taker->alone_fd, of->name, of->bytes);

    CHECK(memcmp(content, wanted, of->bytes) == 0, "%s differs", of->name);
    for (uint64_t i = 0; i < of->block_count; i++) {
        uint64_t offset = i * PLAN_BLOCK_BYTES;
        XXH128_hash_t hash = XXH3_128bits(content + offset,
                                          min_u64(of->bytes - offset, PLAN_BLOCK_BYTES));

        CHECK(hash.low64 == digests[i][0] && hash.high64 == digests[i][1], "block %llu of %s",
              (unsigned long long)i, of->name);
    }
    free(content);
    free(wanted);
    CHECK(unlinkat(taker->directory_fd, of->name, 0) == 0, "%s", of->name);
    sem_post(&taker->finished);
}

/* The space of a file is given back only after the run had to wait for it. */
static void *take_away(void *context)
{
    struct taker *taker = context;

    for (size_t i = 0; i < taker->plan->file_count; i++) {
        sem_wait(&taker->finished);
        if (i + FILES_AT_ONCE < taker->plan->file_count)
            sem_wait(&taker->held);
        taker->gone++;
        pipeline_wake(taker->stop);
    }
    return NULL;
}

static void *cancel_held(void *context)
{
    struct taker *taker = context;

    sem_wait(&taker->held);
    pipeline_cancel(taker->stop);
    return NULL;
}

static int open_fresh(const char *parent, const char *name)
{
    char path[700];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", parent, name);
    CHECK(mkdir(path, 0777) == 0, "%s", path);
    fd = open(path, O_RDONLY | O_DIRECTORY);
    CHECK(fd >= 0, "%s", path);
    return fd;
}

static int run(const struct plan *plan, int directory_fd, const struct pipeline_outlet *outlet,
               bool threads, struct pipeline_stop *stop)
{
    static const struct log log = { 0 };
    const struct pipeline_options options = { .ring = threads ? RING_THREADS : RING_AUTO,
                                              .ops = cpu_fold_find(NULL),
                                              .quant = cpu_quant_find(NULL),
                                              .encode = cpu_encode_find(NULL),
                                              .log = &log };
    struct pipeline_output output = { .plan = plan,
                                      .directory_fd = directory_fd,
                                      .outlet = outlet };
    struct pipeline_result result;
    struct error err = { 0 };
    int status = pipeline_run(&output, 1, &plan->memory, &options, stop, &result, &err);

    CHECK(status == 0 || status == ERR_CANCELLED, "%s", err.text);
    free(output.digests);
    free(output.cloned);
    return status;
}

static void check_taken(const struct plan *plan, const struct made_edits *made, int alone_fd,
                        bool threads, bool cancelled)
{
    struct pipeline_stop stop = { 0 };
    struct taker taker = { .plan = plan, .alone_fd = alone_fd, .stop = &stop };
    const struct pipeline_outlet outlet = { .may_begin = may_begin,
                                            .finished = note_finished,
                                            .context = &taker };
    char name[64];
    int status;

    snprintf(name, sizeof(name), "taken%d%d", threads, cancelled);
    taker.directory_fd = open_fresh(made->model.directory, name);
    CHECK(sem_init(&taker.finished, 0, 0) == 0 && sem_init(&taker.held, 0, 0) == 0, "semaphores");
    CHECK(pthread_create(&taker.thread, NULL, cancelled ? cancel_held : take_away, &taker) == 0,
          "a thread");
    status = run(plan, taker.directory_fd, &outlet, threads, &stop);
    pthread_join(taker.thread, NULL);
    CHECK(status == (cancelled ? ERR_CANCELLED : 0), "%d", status);
    CHECK(cancelled || (taker.begun == plan->file_count && taker.refusals > 0), "%u files begun",
          taker.begun);
    CHECK(!cancelled || taker.begun == FILES_AT_ONCE, "%u files begun", taker.begun);
    sem_destroy(&taker.finished);
    sem_destroy(&taker.held);
    close(taker.directory_fd);
}

static void check_seed(uint64_t seed)
{
    struct plan_options options = { .max_shard_bytes = 300000,
                                    .encode = seed == 2,
                                    .codes = QUANT_NF4 };
    const struct config_facts facts = { .tied = -1 };
    const struct log log = { 0 };
    struct made_edits made = { 0 };
    struct plan plan = { 0 };
    struct pipeline_stop stop = { 0 };
    struct error err = { 0 };
    int alone_fd;

    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    made_edits_create(&made, seed);
    options.scheme = made.scheme.quantised ? &made.scheme : NULL;
    CHECK(plan_make(&plan, &made.base, made.plan_adapters, made.adapter_count, &options, &facts,
                    &log, &err) == 0,
          "%s", err.text);
    CHECK(plan.file_count > FILES_AT_ONCE + 1, "%zu files", plan.file_count);
    CHECK(plan_fit_memory(&plan, BUDGET_BYTES, 2, 2, 0, &err) == 0, "%s", err.text);
    alone_fd = open_fresh(made.model.directory, "alone");
    CHECK(run(&plan, alone_fd, NULL, false, &stop) == 0, "alone");
    for (int threads = 0; threads < 2; threads++) {
        check_taken(&plan, &made, alone_fd, threads, false);
        check_taken(&plan, &made, alone_fd, threads, true);
    }
    close(alone_fd);
    plan_release(&plan);
    made_edits_release(&made);
}

int main(void)
{
    for (uint64_t seed = 1; seed <= 2; seed++)
        check_seed(seed);
    printf("2 passed, 0 failed\n");
    return 0;
}

/*
 * test_together.c - several outputs of one base in one run, against the same ones run singly
 *
 * Bases, edits and options are random; a seed is printed.  Every output must have the
 * bytes that it has alone, with much memory and with the least, however dtypes, cuts
 * and codes differ; and one that fails must not harm the others.
 */
#include "base/clock.h"
#include "check.h"
#include "cpu/cpu.h"
#include "gpu/gpu.h"
#include "pipeline/made_edits.h"
#include "pipeline/pipeline.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OUTPUTS 6u
#define GOOD_BYTES (UINT64_C(128) << 20)

struct together {
    struct made_edits made;
    struct plan plans[OUTPUTS];
    struct plan *list[OUTPUTS];
    char alone[OUTPUTS][600];
};

static void make_plan(struct together *all, unsigned index, uint64_t seed)
{
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    static const uint64_t cuts[] = { 5000000000, 3000000, 700000 };
    struct made_edits *made = &all->made;
    uint64_t mixed = seed + index;
    unsigned first = mixed % made->adapter_count;
    struct plan_options options = { .convert = mixed % 4 != 0,
                                    .dtype = dtypes[mixed % 3],
                                    .max_shard_bytes = cuts[(seed / 2 + index) % 3],
                                    .encode = index == 2,
                                    .codes = seed % 2 ? QUANT_NF4 : QUANT_FP4_BNB,
                                    .nested = seed % 3 != 0,
                                    .roundtrip = index == 3 };
    const struct config_facts facts = { .tied = -1 };
    const struct log log = { 0 };
    struct error err = { 0 };

    options.scheme = made->scheme.quantised ? &made->scheme : NULL;
    CHECK(plan_make(&all->plans[index], &made->base, made->plan_adapters + first,
                    made->adapter_count - first, &options, &facts, &log, &err) == 0,
          "%s", err.text);
    all->list[index] = &all->plans[index];
    snprintf(all->alone[index], sizeof(all->alone[index]), "%s/alone%u", made->model.directory,
             index);
}

static struct pipeline_options options_of(bool threads)
{
    static const struct log log = { 0 };

    return (struct pipeline_options){ .ring = threads ? RING_THREADS : RING_AUTO,
                                      .direct = threads ? FILE_DIRECT_OFF : FILE_DIRECT_AUTO,
                                      .ops = cpu_fold_find(NULL),
                                      .quant = cpu_quant_find(NULL),
                                      .encode = cpu_encode_find(NULL),
                                      .log = &log };
}

static int open_fresh(const char *directory)
{
    int fd;

    CHECK(mkdir(directory, 0777) == 0, "%s", directory);
    fd = open(directory, O_RDONLY | O_DIRECTORY);
    CHECK(fd >= 0, "%s", directory);
    return fd;
}

static void run_alone(struct together *all)
{
    struct pipeline_options options = options_of(false);

    for (unsigned i = 0; i < OUTPUTS; i++) {
        struct pipeline_output output = { .plan = &all->plans[i],
                                          .directory_fd = open_fresh(all->alone[i]) };
        struct pipeline_stop stop = { 0 };
        struct pipeline_result result;
        struct error err = { 0 };

        CHECK(plan_fit_memory(&all->plans[i], GOOD_BYTES, 2, 2, 0, &err) == 0, "%s", err.text);
        CHECK(pipeline_run(&output, 1, &all->plans[i].memory, &options, &stop, &result, &err) == 0,
              "%s", err.text);
        free(output.digests);
        free(output.cloned);
        close(output.directory_fd);
    }
}

struct ends {
    unsigned count;
    bool ended[OUTPUTS];
    unsigned failing; /* its end is refused; OUTPUTS: none */
};

static void note_end(void *context, size_t index, struct error *err)
{
    struct ends *ends = context;

    CHECK(!ends->ended[index], "output %zu ends twice", index);
    ends->ended[index] = true;
    ends->count++;
    if (index == ends->failing)
        error_set(err, ERR_FAILED, "refused");
}

/* `failing`: an output in whose way a file stands; OUTPUTS: none. `device_bytes`: of a simulated
 * device, or 0. */
static void run_together(struct together *all, const char *name, uint64_t budget, unsigned threads,
                         bool ring_threads, unsigned failing, uint64_t device_bytes)
{
    struct pipeline_options options = options_of(ring_threads);
    struct pipeline_output outputs[OUTPUTS] = { 0 };
    struct plan_budget asked = { budget, threads, threads, 0, device_bytes };
    struct plan_memory memory;
    struct pipeline_stop stop = { 0 };
    struct pipeline_result result;
    struct ends ends = { .failing = OUTPUTS };
    struct error err = { 0 };
    char directory[OUTPUTS][700];
    int status;

    status = plan_fit_memory_of(&memory, all->list, OUTPUTS, &asked, &err);
    if (budget == 1) { /* the least there is */
        CHECK(status == ERR_USAGE, "%d", status);
        asked.bytes = memory.least_bytes;
        status = plan_fit_memory_of(&memory, all->list, OUTPUTS, &asked, &err);
    }
    CHECK(status == 0, "%s", err.text);
    CHECK(memory.window_count >= 3, "%u windows", memory.window_count);
    CHECK(memory.needed_bytes <= memory.budget_bytes, "too much");
    for (unsigned i = 0; i < OUTPUTS; i++) {
        snprintf(directory[i], sizeof(directory[i]), "%s/%s%u", all->made.model.directory, name, i);
        outputs[i] = (struct pipeline_output){ .plan = &all->plans[i],
                                               .directory_fd = open_fresh(directory[i]),
                                               .shares_base = true };
    }
    if (failing < OUTPUTS) {
        int fd = openat(outputs[failing].directory_fd, all->plans[failing].files[0].name,
                        O_CREAT | O_WRONLY, 0666);

        CHECK(fd >= 0, "no file");
        close(fd);
        ends.failing = (failing + 1) % OUTPUTS;
    }
    options.ended = note_end;
    options.context = &ends;
    if (device_bytes) {
        CHECK(gpu_sim.open(&options.device, 1, &err) == 0, "%s", err.text);
        options.device_ops = &gpu_sim;
    }
    status = pipeline_run(outputs, OUTPUTS, &memory, &options, &stop, &result, &err);
    gpu_sim.close(options.device);
    CHECK((status == 0) == (failing == OUTPUTS), "%d: %s", status, err.text);
    CHECK(ends.count == OUTPUTS, "%u of %u ended", ends.count, OUTPUTS);
    for (unsigned i = 0; i < OUTPUTS; i++) {
        bool bad = failing < OUTPUTS && (i == failing || i == ends.failing);

        CHECK((outputs[i].error.code != 0) == bad, "output %u: %s", i, outputs[i].error.text);
        free(outputs[i].digests);
        free(outputs[i].cloned);
        close(outputs[i].directory_fd);
        if (!bad)
            made_check_same(all->alone[i], directory[i]);
    }
}

static void check_seed(uint64_t seed)
{
    struct together all = { 0 };

    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    made_edits_create(&all.made, seed);
    for (unsigned i = 0; i < OUTPUTS; i++)
        make_plan(&all, i, seed);
    run_alone(&all);
    run_together(&all, "much", 2 * GOOD_BYTES, 2, false, OUTPUTS, 0);
    run_together(&all, "device", 2 * GOOD_BYTES, 0, false, (unsigned)(seed % (OUTPUTS + 1)),
                 256 * MIB);
    run_together(&all, "least", 1, 1, true, OUTPUTS, 0);
    run_together(&all, "failing", GOOD_BYTES, 2, seed % 2 == 0, seed % OUTPUTS, 0);
    for (unsigned i = 0; i < OUTPUTS; i++)
        plan_release(&all.plans[i]);
    made_edits_release(&all.made);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 2u /* they take ten times as long */
#else
#define SEEDS 4u
#endif

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t last = argc > 1 ? first : SEEDS;

    for (uint64_t seed = first; seed <= last; seed++)
        check_seed(seed);
    printf("%llu passed, 0 failed\n", (unsigned long long)(last - first + 1));
    return 0;
}

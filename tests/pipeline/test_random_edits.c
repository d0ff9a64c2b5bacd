/*
 * Random edits of random bases through plan and pipeline, against their definition
 * (adapter/edit.h, docs/NUMERICS.md) computed element by element.  What an adapter
 * means is not in question here: adapter_make_edits() is replaced by one that hands
 * out the edits made up here.
 *
 * usage: test_random_edits [seed]
 */
#include "check.h"
#include "pipeline/made_edits.h"
#include "pipeline/made_torch.h"

#include "cpu/cpu.h"
#include "gpu/gpu.h"
#include "pipeline/pipeline.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_uint small_reads;

ssize_t __real_pread(int fd, void *buffer, size_t count, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t count, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t count, off_t offset)
{
    atomic_fetch_add(&small_reads, count < 16);
    return __real_pread(fd, buffer, count, offset);
}

/* Where a run computes, and how. */
struct way {
    const char *kernels;
    bool threads;   /* not io_uring, no O_DIRECT */
    bool cancelled; /* before it begins */
    bool simulated;
    unsigned delays; /* of the simulated device */
};

/* Is the device the first GPU (tests/gpu), not the simulated one? */
static bool wants_gpu(void)
{
    const char *name = getenv("LORAFOLD_TEST_DEVICE");

    return name && strcmp(name, "cuda") == 0;
}

static void open_device(struct pipeline_options *options, unsigned delays)
{
    struct error err = { 0 };

    options->device_ops = wants_gpu() ? &gpu_cuda : &gpu_sim;
    if (wants_gpu())
        delays = 0; /* its number */
    CHECK(options->device_ops->open(&options->device, delays, &err) == 0, "%s", err.text);
}

static void run(const struct plan *plan, const char *output, const struct way *way)
{
    const char *kernels = way->kernels;
    bool threads = way->threads;
    bool cancelled = way->cancelled;
    struct device *device = NULL;
    struct pipeline_options options = { .ring = threads ? RING_THREADS : RING_AUTO,
                                        .direct = threads ? FILE_DIRECT_OFF : FILE_DIRECT_AUTO,
                                        .ops = cpu_fold_find(kernels),
                                        .quant = cpu_quant_find(kernels),
                                        .encode = cpu_encode_find(kernels),
                                        .log = &(struct log){ 0 } };
    struct pipeline_stop stop = { .cancelled = cancelled };
    struct pipeline_output order = { .plan = plan };
    struct pipeline_result result = { 0 };
    struct error err = { 0 };
    int status;

    CHECK(mkdir(output, 0777) == 0, "%s", output);
    if (way->simulated) {
        open_device(&options, way->delays);
        device = options.device;
    }
    atomic_store(&small_reads, 0);
    order.directory_fd = open(output, O_RDONLY | O_DIRECTORY);
    CHECK(order.directory_fd >= 0, "%s", output);
    status = pipeline_run(&order, 1, &plan->memory, &options, &stop, &result, &err);
    CHECK(status == (cancelled ? ERR_CANCELLED : 0), "%d: %s", status, err.text);
    CHECK(!cancelled || result.bytes_written == 0, "it went on");
    /* One for each row of a magnitude, but none for each element; codes come in pieces. */
    CHECK(plan->decoded || atomic_load(&small_reads) < 60000, "%u small reads",
          atomic_load(&small_reads));
    if (device)
        options.device_ops->close(device);
    free(order.digests);
    free(order.cloned);
    close(order.directory_fd);
}

/* On a device that does nothing before it is waited for, or, in the least memory, with delays. */
static void check_simulated(struct plan *plan, unsigned seed, const char *expected)
{
    struct way way = { .simulated = true, .delays = seed % 2 ? seed : 0 };
    struct plan_budget budget = { .bytes = 128 * MIB, .device_bytes = 256 * MIB, .threads = 3 };
    struct plan_memory memory;
    struct error err = { 0 };
    char output[700];

    snprintf(output, sizeof(output), "%s.simulated", expected);
    CHECK(plan_fit_memory_of(&memory, &plan, 1, &budget, &err) == 0, "%s", err.text);
    if (way.delays) {
        budget.device_bytes = memory.device_least_bytes - 1;
        CHECK(plan_fit_memory_of(&memory, &plan, 1, &budget, &err) == ERR_USAGE &&
                  strstr(err.text, "--gpu-memory"),
              "%s", err.text);
        budget.device_bytes++;
        CHECK(plan_fit_memory_of(&memory, &plan, 1, &budget, &err) == 0, "%s", err.text);
    }
    plan->memory = memory;
    CHECK(plan->memory.device_bytes <= plan->memory.device_budget_bytes, "more than was allowed");
    run(plan, output, &way);
    made_check_same(expected, output);
}

static void check_seed(uint64_t seed)
{
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    struct made_edits made = { 0 };
    struct plan_options options = { .convert = seed % 4 != 0,
                                    .dtype = dtypes[seed % 4],
                                    .max_shard_bytes = seed % 5 == 1 ? 3000000 : 5000000000,
                                    .encode = seed % 3 == 0,
                                    .codes = seed % 2 ? QUANT_NF4 : QUANT_FP4_BNB,
                                    .nested = seed % 9 != 0,
                                    .roundtrip = seed % 3 == 1 || seed % 9 == 6 };
    const struct config_facts facts = { .tied = -1 };
    const struct log log = { 0 };
    struct error err = { 0 };
    struct plan plan = { 0 };
    char first[600], second[600], third[600], fourth[600];
    struct model opened = { 0 };

    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    made_edits_create(&made, seed);
    options.scheme = made.scheme.quantised ? &made.scheme : NULL;
    CHECK(plan_make(&plan, &made.base, made.plan_adapters, made.adapter_count, &options, &facts,
                    &log, &err) == 0,
          "%s", err.text);
    CHECK(plan.decoded > 0 || !made.scheme.quantised, "nothing is quantised");
    CHECK(plan.roundtrips > 0 || !options.roundtrip, "nothing goes through NF4");
    CHECK(plan.encoded > 0 || !options.encode || made.bnb4, "nothing is encoded");
    CHECK(plan_fit_memory(&plan, UINT64_C(128) << 20, 2, 2, 0, &err) == 0, "%s", err.text);
    snprintf(first, sizeof(first), "%s/first", made.model.directory);
    snprintf(second, sizeof(second), "%s/second", made.model.directory);
    snprintf(fourth, sizeof(fourth), "%s/fourth", made.model.directory);
    snprintf(third, sizeof(third), "%s/third", made.model.directory);
    run(&plan, third, &(const struct way){ .cancelled = true });
    run(&plan, first, &(const struct way){ 0 });
    made_edits_check(&made, &plan, first, &options);
    /* The smallest memory: nothing is resident, more goes panel by panel and is read twice. */
    CHECK(plan_fit_memory(&plan, plan.memory.least_bytes, 1, 1, 0, &err) == 0, "%s", err.text);
    run(&plan, second, &(const struct way){ .kernels = "scalar", .threads = true });
    made_check_same(first, second);
    check_simulated(&plan, (unsigned)seed, first);
    plan_release(&plan);
    /* The same tensors in files of torch.save(). */
    options.torch = true;
    CHECK(plan_make(&plan, &made.base, made.plan_adapters, made.adapter_count, &options, &facts,
                    &log, &err) == 0,
          "%s", err.text);
    CHECK(plan_fit_memory(&plan, UINT64_C(128) << 20, 2, 2, 0, &err) == 0, "%s", err.text);
    run(&plan, fourth, &(const struct way){ .threads = seed % 2 });
    if (seed % 4 == 0)
        check_simulated(&plan, (unsigned)seed, fourth);
    made_edits_check(&made, &plan, fourth, &options);
    made_open_output(&opened, fourth);
    CHECK(opened.tensor_count == plan.tensor_count, "%zu tensors, not %zu", opened.tensor_count,
          plan.tensor_count);
    model_release(&opened);
    plan_release(&plan);
    made_edits_release(&made);
}

static void check_rank(void)
{
    struct made_edits made = { 0 };
    struct plan_options options = { .max_shard_bytes = 5000000000 };
    const struct config_facts facts = { .tied = -1 };
    const struct log log = { 0 };
    struct error err = { 0 };
    struct plan plan = { 0 };
    struct adapter_edit *edit;

    made_edits_create(&made, 1);
    for (edit = made.edits[0].list; edit->kind != EDIT_DELTA;)
        edit++;
    edit->rank = FOLD_RANK_MAX + 1;
    CHECK(plan_make(&plan, &made.base, made.plan_adapters, made.adapter_count, &options, &facts,
                    &log, &err) == ERR_FORMAT &&
              strstr(err.text, "rank 65537, of at most 65536"),
          "'%s'", err.text);
    made_edits_release(&made);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 4u /* they take ten times as long; of the first four each has another dtype */
#else
#define SEEDS 8u
#endif

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t last = argc > 1 ? first : SEEDS;
    char reason[160];

    if (wants_gpu() && gpu_cuda_count(reason, sizeof(reason)) == 0) {
        printf("%s\n", reason);
        return 77;
    }
    check_rank();
    for (uint64_t seed = first; seed <= last; seed++)
        check_seed(seed);
    printf("%llu passed, 0 failed\n", (unsigned long long)(last - first + 1));
    return 0;
}

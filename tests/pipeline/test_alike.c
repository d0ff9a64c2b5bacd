/*
 * test_alike.c - what several outputs have alike is made once, and each has the bytes that it has
 * alone
 *
 * The adapter is the same with another weight for each output, so that nothing is equal by chance
 * where it changes a tensor.
 */
#include "check.h"
#include "lorafold.h"
#include "merge.h"
#include "pipeline/made_model.h"

#include <string.h>

#define BLOCK (UINT64_C(4) << 20)
#define OUTPUTS_MAX 5u

static char base[600];
static char adapter_path[600];
static char directory[520];

/* What an output is beside its weight. */
struct kind {
    enum lorafold_dtype dtype;
    enum lorafold_save_method method;
    bool nested;
    enum lorafold_quant_type quant_type;
    uint64_t max_shard_bytes;
    bool torch;
    bool allow_nonfinite;
};

static struct lorafold_merge_options options_of(const struct kind *kind,
                                                const struct lorafold_adapter *adapter)
{
    struct lorafold_merge_options options;

    lorafold_merge_options_init(&options);
    options.base = base;
    options.adapters = adapter;
    options.adapter_count = 1;
    options.threads = 2;
    options.clone = LORAFOLD_CLONE_NEVER;
    options.memory_bytes = UINT64_C(400) << 20;
    options.dtype = kind->dtype;
    options.save_method = kind->method;
    options.single_quant = kind->method == LORAFOLD_MERGED_4BIT && !kind->nested;
    options.quant_type = kind->quant_type;
    if (kind->max_shard_bytes)
        options.max_shard_bytes = kind->max_shard_bytes;
    options.safe_serialization = !kind->torch;
    options.allow_nonfinite = kind->allow_nonfinite;
    return options;
}

static void run_alone(const struct kind *kind, const struct lorafold_adapter *adapter,
                      const char *out)
{
    struct lorafold_merge_options options = options_of(kind, adapter);
    struct lorafold_merge *job = NULL;
    struct lorafold_error err = { 0 };

    options.output = out;
    CHECK(lorafold_merge_open(&job, &options, &err) == 0 && lorafold_merge_run(job, &err) == 0,
          "%s", err.text);
    lorafold_merge_close(job);
}

static void add(struct lorafold_batch *batch, const struct kind *kind,
                const struct lorafold_adapter *adapter, unsigned number)
{
    const struct lorafold_merge_options options = options_of(kind, adapter);
    struct lorafold_error err = { 0 };
    char name[20];

    snprintf(name, sizeof(name), "o%u", number);
    CHECK(lorafold_batch_add(batch, name, &options, &err) == 0, "%s", err.text);
}

static void check_same(const char *one, const char *other)
{
    char command[1600];

    snprintf(command, sizeof(command), "diff -r '%s' '%s'", one, other);
    CHECK(system(command) == 0, "%s", command);
}

/*
 * Outputs of these kinds in one run: as much is made once as at least `least` and at most `most`
 * bytes say, of each output that is not the first of its kind.
 */
static void check(const char *title, unsigned count, const struct kind *kinds, uint64_t least,
                  uint64_t most)
{
    struct lorafold_merge_options common = options_of(&kinds[0], NULL);
    struct lorafold_adapter adapters[OUTPUTS_MAX];
    struct lorafold_batch_report report;
    struct lorafold_batch *batch = NULL;
    struct lorafold_error err = { 0 };
    char out[700], one[760], alone[700];

    snprintf(out, sizeof(out), "%s/out", directory);
    common.output = out;
    CHECK(lorafold_batch_create(&batch, &common, 0, &err) == 0, "%s", err.text);
    for (unsigned i = 0; i < count; i++) {
        adapters[i] = (struct lorafold_adapter){ adapter_path, 1.0 + i };
        add(batch, &kinds[i], &adapters[i], i);
    }
    CHECK(lorafold_batch_open(batch, &err) == 0, "%s", err.text);
    CHECK(lorafold_batch_run(batch, &err) == 0, "%s", err.text);
    lorafold_batch_report(batch, &report);
    lorafold_batch_close(batch);
    printf("%s: %llu of %llu bytes are alike\n", title, (unsigned long long)report.bytes_alike,
           (unsigned long long)report.bytes_written);
    CHECK(report.bytes_alike >= least && report.bytes_alike <= most, "not %llu to %llu",
          (unsigned long long)least, (unsigned long long)most);
    snprintf(alone, sizeof(alone), "%s/alone", directory);
    for (unsigned i = 0; i < count; i++) {
        snprintf(one, sizeof(one), "%s/o%u", out, i);
        run_alone(&kinds[i], &adapters[i], alone);
        check_same(alone, one);
        made_remove(alone);
    }
    made_remove(out);
}

/* What is no number in an output is an error of all that have it alike and do not allow it. */
static void check_not_finite(const struct kind *allowed, const struct kind *strict)
{
    struct lorafold_merge_options common = options_of(strict, NULL);
    const struct lorafold_adapter adapter = { adapter_path, 1.0 };
    struct lorafold_batch_report report;
    struct lorafold_batch *batch = NULL;
    struct lorafold_error err = { 0 };
    char out[700], one[760], alone[700];

    snprintf(out, sizeof(out), "%s/out", directory);
    snprintf(one, sizeof(one), "%s/o2", out);
    snprintf(alone, sizeof(alone), "%s/alone", directory);
    common.output = out;
    CHECK(lorafold_batch_create(&batch, &common, 0, &err) == 0, "%s", err.text);
    add(batch, strict, &adapter, 0);
    add(batch, strict, &adapter, 1);
    add(batch, allowed, &adapter, 2);
    CHECK(lorafold_batch_open(batch, &err) == 0, "%s", err.text);
    CHECK(lorafold_batch_run(batch, &err) == LORAFOLD_FAILED, "%s", err.text);
    lorafold_batch_report(batch, &report);
    CHECK(report.complete == 1 && report.failed == 2, "%zu are complete", report.complete);
    for (size_t i = 0; i < 3; i++) {
        struct lorafold_batch_output output;

        lorafold_batch_output(batch, i, &output);
        CHECK((i == 2) == (output.error.code == 0) &&
                  (i == 2 || strstr(output.error.text, "c.weight")),
              "output %zu: %s", i, output.error.text);
    }
    lorafold_batch_close(batch);
    run_alone(allowed, &adapter, alone);
    check_same(alone, one);
    made_remove(alone);
    made_remove(out);
}

/* Elements of the tensors that no adapter changes: some 18 blocks of 16 bits in a row. */
#define ROWS 8192u
#define COLS 2304u

static void make(struct made_model *model)
{
    uint64_t rng = 23;

    model->shard_count = 1;
    model->scale = 0.5f;
    made_add(model, &rng, "b.weight", DTYPE_BF16, 2, (uint64_t[]){ ROWS, COLS }, 0, 0, DTYPE_F32);
    made_add(model, &rng, "a.weight", DTYPE_BF16, 2, (uint64_t[]){ 90, 71 }, 0, 3, DTYPE_F32);
    made_add(model, &rng, "c.weight", DTYPE_BF16, 2, (uint64_t[]){ ROWS, COLS }, 0, 0, DTYPE_F32);
    made_add(model, &rng, "d.weight", DTYPE_BF16, 2, (uint64_t[]){ 60, 80 }, 0, 2, DTYPE_F16);
    model->tensors[2].data[2 * COLS * 5000] = 0x00;
    model->tensors[2].data[2 * COLS * 5000 + 1] = 0x7f; /* too large for 16 bits of another kind */
}

/* Of one plan each block of the base is like itself alone: the two tensors are equally large. */
static void check_blocks(const struct kind *kind)
{
    const struct lorafold_adapter adapter = { adapter_path, 1.0 };
    struct lorafold_merge_options options = options_of(kind, &adapter);
    struct lorafold_merge *job = NULL;
    struct lorafold_error err = { 0 };
    const struct plan *plan;
    unsigned of_base = 0;

    CHECK(lorafold_merge_open(&job, &options, &err) == 0, "%s", err.text);
    plan = &job->plan;
    CHECK(plan->file_count == 1, "%zu files", plan->file_count);
    for (uint64_t i = 0; i < plan->block_count; i++) {
        struct plan_block one, other;

        plan_block(plan, 0, i, &one);
        if (!plan_block_is_of_base(plan, &one))
            continue;
        of_base++;
        for (uint64_t k = 0; k < plan->block_count; k++) {
            plan_block(plan, 0, k, &other);
            CHECK(plan_blocks_are_alike(plan, &one, plan, &other) == (i == k),
                  "blocks %llu and %llu", (unsigned long long)i, (unsigned long long)k);
        }
    }
    CHECK(of_base > 10, "%u blocks", of_base);
    lorafold_merge_close(job);
}

int main(void)
{
    const uint64_t elements = UINT64_C(2) * ROWS * COLS;
    const struct kind plain = { .dtype = LORAFOLD_DTYPE_KEEP };
    const struct kind f32 = { .dtype = LORAFOLD_DTYPE_F32 };
    const struct kind f16 = { .dtype = LORAFOLD_DTYPE_F16, .allow_nonfinite = true };
    const struct kind f16_strict = { .dtype = LORAFOLD_DTYPE_F16 };
    const struct kind nf4 = { .method = LORAFOLD_MERGED_4BIT, .nested = true };
    const struct kind nf4_flat = { .method = LORAFOLD_MERGED_4BIT };
    const struct kind fp4 = { .method = LORAFOLD_MERGED_4BIT, .quant_type = LORAFOLD_FP4 };
    const struct kind torch = { .torch = true };
    const struct kind cut_plain = { .max_shard_bytes = 40000000 };
    const struct kind cut = { .dtype = LORAFOLD_DTYPE_F32, .max_shard_bytes = 40000000 };
    struct made_model model = { 0 };

    made_directory(model.directory, sizeof(model.directory));
    make(&model);
    made_write(&model);
    snprintf(directory, sizeof(directory), "%s", model.directory);
    snprintf(base, sizeof(base), "%s/base", directory);
    snprintf(adapter_path, sizeof(adapter_path), "%s/adapter", directory);

    check_blocks(&plain);
    check_blocks(&f32);
    /* The first block and the last are each output's own. */
    check("copies", 2, (struct kind[]){ plain, plain }, 2 * elements - 2 * BLOCK, 2 * elements);
    check("converted", 3, (struct kind[]){ f32, f32, f32 }, 2 * (4 * elements - 2 * BLOCK),
          2 * 4 * elements);
    check("two kinds", 4, (struct kind[]){ f32, f16, f32, f16 }, 6 * elements - 4 * BLOCK,
          6 * elements);
    check("files cut elsewhere", 2, (struct kind[]){ f32, cut }, 0, 4 * elements - 2 * BLOCK);
    check("headers of files cut elsewhere", 2, (struct kind[]){ plain, cut_plain }, BLOCK,
          2 * elements);
    check_not_finite(&f16, &f16_strict);
    /* Companions are made of the codes for each. */
    check("encoded", 3, (struct kind[]){ nf4, nf4, nf4 }, 4 * BLOCK, elements);
    check("nested or not", 2, (struct kind[]){ nf4, nf4_flat }, 0, elements / 2);
    check("other codes", 2, (struct kind[]){ nf4_flat, fp4 }, 0, 0);
    check("files of torch", 2, (struct kind[]){ torch, torch }, 0, 0);
    made_remove(directory);
    made_release(&model);
    printf("9 passed, 0 failed\n");
    return 0;
}

/*
 * Random bases and adapters through the whole library, against the scalar
 * definition computed tensor by tensor; and every way of doing I/O and
 * arithmetic against every other, a device too: the same bytes.
 *
 * usage: test_merge [seed]
 */
#include "check.h"
#include "lorafold.h"
#include "pipeline/made_model.h"

#include "cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

struct way {
    const char *engine;
    const char *direct;
    const char *kernels;
    unsigned threads;
    uint64_t memory_bytes;
    bool torch;
    const char *device; /* NULL: auto */
};

static void print_message(void *context, enum lorafold_level level, const char *sentence)
{
    (void)context;
    if (level == LORAFOLD_NOTICE)
        fprintf(stderr, "message: %s\n", sentence);
}

/* How many blocks were folded in place. */
static int merge(const struct made_model *model, const char *output, enum lorafold_dtype dtype,
                 uint64_t max_shard_bytes, const struct way *way)
{
    struct lorafold_merge_options options;
    struct lorafold_adapter adapter = { .weight = 1.0 };
    struct lorafold_merge *job = NULL;
    struct lorafold_error err = { 0 };
    char base[600];
    char path[600];
    char *plan;
    int in_place;

    snprintf(base, sizeof(base), "%s/base", model->directory);
    snprintf(path, sizeof(path), "%s/adapter", model->directory);
    adapter.path = path;
    lorafold_merge_options_init(&options);
    options.base = base;
    options.adapters = &adapter;
    options.adapter_count = 1;
    options.output = output;
    options.dtype = dtype;
    options.max_shard_bytes = max_shard_bytes;
    options.io_engine = way->engine;
    options.io_direct = way->direct;
    options.kernels = way->kernels;
    options.threads = way->threads;
    options.memory_bytes = way->memory_bytes;
    options.safe_serialization = !way->torch;
    options.device = way->device;
    options.message = print_message;
    CHECK(lorafold_merge_open(&job, &options, &err) == 0, "%s", err.text);
    plan = lorafold_merge_describe(job, LORAFOLD_JSON);
    CHECK(plan, "memory");
    in_place = atoi(strchr(strstr(plan, "blocks_in_place"), ':') + 1);
    lorafold_free(plan);
    CHECK(lorafold_merge_run(job, &err) == 0, "%s", err.text);
    lorafold_merge_close(job);
    return in_place;
}

/* Tensors of all kinds in random order; sizes that make several blocks. */
static void make(struct made_model *model, uint64_t seed)
{
    static const enum dtype any[] = { DTYPE_BF16, DTYPE_F16,     DTYPE_F32, DTYPE_I64, DTYPE_U8,
                                      DTYPE_BOOL, DTYPE_F8_E4M3, DTYPE_I16, DTYPE_F64 };
    uint64_t rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    unsigned count = (unsigned)made_random_in(&rng, 8, 24);

    model->shard_count = (unsigned)made_random_in(&rng, 1, 3);
    model->scale = seed % 2 ? 0.5f : 0.0625f;
    for (unsigned i = 0; i < model->shard_count; i++)
        model->header_spaces[i] = (unsigned)(seed % 3 == 0 ? made_random_in(&rng, 0, 9000)
                                                           : 8 * made_random_in(&rng, 0, 1200));
    for (unsigned i = 0; i < count; i++) {
        enum dtype dtype = any[made_random_in(&rng, 0, 8)];
        unsigned shard = (unsigned)made_random_in(&rng, 0, model->shard_count - 1);
        unsigned dims = (unsigned)made_random_in(&rng, 0, 3);
        uint64_t shape[3] = { made_random_in(&rng, i % 7 == 0 ? 0 : 1, 40),
                              made_random_in(&rng, 1, 90), made_random_in(&rng, 1, 70) };
        bool large = i % 5 == 0;
        bool target = dtype_is_computed(dtype) && (dims == 2 || large);
        uint32_t rank = target ? (uint32_t)made_random_in(&rng, 1, i % 4 == 0 ? 150 : 20) : 0;
        char name[64];

        if (large) {
            dims = 2;
            shape[0] = made_random_in(&rng, 300, 700);
            shape[1] = made_random_in(&rng, 300, 1000);
        }
        if (shape[0] == 0)
            rank = 0;
        snprintf(name, sizeof(name), "layers.%u.proj.weight", i);
        made_add(model, &rng, name, dtype, dims, shape, shard, rank,
                 any[made_random_in(&rng, 0, 2)]);
    }
    /* At least one target, large enough that its factors are shared by many blocks. */
    made_add(model, &rng, "big.weight", DTYPE_BF16, 2, (uint64_t[]){ 2601, 2503 }, 0,
             seed % 2 ? 9 : 66, DTYPE_F32);
    /* One whose factor is too large for a worker and too seldom needed to be shared: panels. */
    made_add(model, &rng, "wide.weight", DTYPE_BF16, 2, (uint64_t[]){ 97, 5003 }, 0, 70,
             DTYPE_BF16);
    if (model->shard_count > 1)
        made_add(model, &rng, "other.weight", DTYPE_F32, 2, (uint64_t[]){ 1100, 1201 },
                 model->shard_count - 1, 5, DTYPE_BF16);
    for (unsigned s = 0; s < model->shard_count; s++) { /* no shard is empty */
        char name[64];

        snprintf(name, sizeof(name), "filler.%u", s);
        made_add(model, &rng, name, DTYPE_U8, 1, (uint64_t[]){ made_random_in(&rng, 1, 9) }, s, 0,
                 DTYPE_F32);
    }
}

static void check_seed(uint64_t seed)
{
    static const enum lorafold_dtype dtypes[] = { LORAFOLD_DTYPE_KEEP, LORAFOLD_DTYPE_BF16,
                                                  LORAFOLD_DTYPE_F16, LORAFOLD_DTYPE_F32 };
    static const enum dtype inner[] = { DTYPE_BF16, DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    const struct way plain = { .threads = 2, .memory_bytes = UINT64_C(128) << 20 };
    const char *device = getenv("LORAFOLD_TEST_DEVICE"); /* tests/gpu */
    const struct way torch = { .threads = 2, .memory_bytes = UINT64_C(128) << 20, .torch = true };
    struct way way;
    const struct way others[] = {
        { "threads", "off", "scalar", 3, UINT64_C(200) << 20, false, NULL },
        { "threads", "on", NULL, 1, UINT64_C(48) << 20, false, NULL }, /* little memory: panels */
        { NULL, "off", NULL, 2, UINT64_C(64) << 20, false, NULL },
    };
    struct made_model model = { 0 };
    uint64_t max_shard_bytes = seed % 4 == 1 ? 3000000 : 5000000000;
    /* A simulated device takes its time: one format is enough. */
    bool torch_on_device = seed / 4 % 2;
    unsigned d = (unsigned)(seed % 4);
    char first[600];
    char second[600];
    char simulated[8];

    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    made_directory(model.directory, sizeof(model.directory));
    make(&model, seed);
    made_write(&model);
    snprintf(first, sizeof(first), "%s/first", model.directory);
    snprintf(second, sizeof(second), "%s/second", model.directory);
    merge(&model, first, dtypes[d], max_shard_bytes, &plain);
    made_check(&model, first, d != 0, inner[d]);
    merge(&model, second, dtypes[d], max_shard_bytes, &others[seed % 3]);
    made_check_same(first, second);
    snprintf(simulated, sizeof(simulated), "sim:%u", (unsigned)(seed % 8)); /* 0: without delays */
    if (device || !torch_on_device) {
        made_remove(second);
        way = plain;
        way.device = device ? device : simulated;
        merge(&model, second, dtypes[d], max_shard_bytes, &way);
        made_check_same(first, second);
    }
    /* The same tensors in files of torch.save(), with little memory and with much. */
    made_remove(first);
    made_remove(second);
    merge(&model, first, dtypes[d], max_shard_bytes, &torch);
    made_check(&model, first, d != 0, inner[d]);
    way = others[seed % 3];
    way.torch = true;
    merge(&model, second, dtypes[d], max_shard_bytes, &way);
    made_check_same(first, second);
    if (device || torch_on_device) {
        made_remove(second);
        way.device = device ? device : simulated;
        merge(&model, second, dtypes[d], max_shard_bytes, &way);
        made_check_same(first, second);
    }
    made_remove(model.directory);
    made_release(&model);
}

/*
 * Where a large tensor lies at a multiple of 64 in the base, blocks of torch files are folded in
 * place too.
 */
static void check_in_place(void)
{
    const struct way way = { .threads = 2, .memory_bytes = UINT64_C(128) << 20, .torch = true };
    struct made_model model = { .shard_count = 1, .scale = 0.5f };
    uint64_t rng = 3;
    char output[600];

    made_directory(model.directory, sizeof(model.directory));
    made_add(&model, &rng, "a.weight", DTYPE_BF16, 2, (uint64_t[]){ 3000, 2048 }, 0, 4, DTYPE_F32);
    made_add(&model, &rng, "b.weight", DTYPE_F32, 2, (uint64_t[]){ 1600, 2048 }, 0, 7, DTYPE_F32);
    made_add(&model, &rng, "c.weight", DTYPE_F32, 2, (uint64_t[]){ 3, 5 }, 0, 0, DTYPE_F32);
    model.header_spaces[0] = made_spaces_to(&model, 0, 64);
    made_write(&model);
    snprintf(output, sizeof(output), "%s/out", model.directory);
    CHECK(merge(&model, output, LORAFOLD_DTYPE_KEEP, UINT64_MAX, &way) >= 3,
          "blocks are not folded in place");
    made_check(&model, output, false, DTYPE_BF16);
    made_remove(model.directory);
    made_release(&model);
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t last = argc > 1 ? first : 8;

    check_in_place();
    for (uint64_t seed = first; seed <= last; seed++)
        check_seed(seed);
    printf("%llu passed, 0 failed\n", (unsigned long long)(last - first + 1));
    return 0;
}

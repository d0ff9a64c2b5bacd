/*
 * plan_case.h - bases and adapters that consist of headers, and plans of them
 *
 * Their data are holes, so that sizes cost nothing.  begin() makes a fixture, end() removes it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_UNIT_PLAN_CASE_H
#define TESTS_UNIT_PLAN_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io_temp.h"
#include "plan/plan.h"

#define ADAPTERS_MAX 80
#define SHARD_MAX UINT64_C(5000000000)
#define CONFIG(modules)                                                                            \
    "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":4,\"target_modules\":" modules "}"

/* A safetensors file in the making. */
struct made_file {
    struct text json;
    uint64_t offset; /* of the next tensor */
};

struct fixture {
    char *directory;
    struct model model;
    struct adapter adapters[ADAPTERS_MAX];
    struct plan_adapter used[ADAPTERS_MAX];
    size_t adapter_count;
    struct plan plan;
    struct error error;
    struct text said; /* sentences of the log */
};

static inline void add_shaped(struct made_file *file, const char *name, enum dtype dtype,
                              const uint64_t *shape, size_t count)
{
    uint64_t bytes = dtype_bytes(dtype);

    for (size_t i = 0; i < count; i++)
        bytes *= shape[i];
    if (!file->json.bytes)
        st_emit_begin(&file->json, NULL, 0);
    st_emit_tensor(&file->json, name, strlen(name), dtype, shape, count, file->offset, bytes);
    file->offset += bytes;
}

static inline void add(struct made_file *file, const char *name, enum dtype dtype, uint64_t rows,
                       uint64_t cols)
{
    add_shaped(file, name, dtype, (const uint64_t[]){ rows, cols }, 2);
}

/* Both factors of rank 4, in BF16. */
static inline void add_pair(struct made_file *file, const char *module, uint64_t rows,
                            uint64_t cols)
{
    char name[128];

    snprintf(name, sizeof(name), "base_model.model.%s.lora_A.weight", module);
    add(file, name, DTYPE_BF16, 4, cols);
    snprintf(name, sizeof(name), "base_model.model.%s.lora_B.weight", module);
    add(file, name, DTYPE_BF16, rows, 4);
}

/* `residue`: where the data start, modulo PAGE_BYTES. */
static inline void write_file(struct made_file *file, const char *path, uint64_t residue)
{
    uint8_t prefix[ST_PREFIX_BYTES];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    st_emit_end(&file->json, residue, PAGE_BYTES);
    store_le64(prefix, file->json.bytes);
    assert_false(file->json.failed);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, prefix, sizeof(prefix)), sizeof(prefix));
    assert_int_equal(write(fd, file->json.data, file->json.bytes), file->json.bytes);
    assert_int_equal(ftruncate(fd, (off_t)(sizeof(prefix) + file->json.bytes + file->offset)), 0);
    close(fd);
    text_release(&file->json);
    file->offset = 0;
}

static inline void remember(void *context, enum log_level level, const char *sentence)
{
    struct fixture *fixture = context;

    (void)level;
    text_adds(&fixture->said, sentence);
}

static inline struct fixture *begin(void)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    assert_non_null(fixture);
    fixture->directory = temp_make(NULL);
    return fixture;
}

static inline void end(struct fixture *fixture)
{
    plan_release(&fixture->plan);
    model_release(&fixture->model);
    for (size_t i = 0; i < fixture->adapter_count; i++)
        adapter_release(&fixture->adapters[i]);
    text_release(&fixture->said);
    temp_remove(fixture->directory);
    free(fixture);
}

static inline void make_base(struct fixture *fixture, struct made_file *file, uint64_t residue)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/model.safetensors", fixture->directory);
    write_file(file, path, residue);
    if (model_open(&fixture->model, path, NULL, &fixture->error))
        fail_msg("%s", fixture->error.text);
}

static inline void make_adapter(struct fixture *fixture, struct made_file *file, const char *config)
{
    size_t number = fixture->adapter_count;
    char path[PATH_MAX];
    char inside[PATH_MAX + 64];

    snprintf(path, sizeof(path), "%s/adapter-%zu", fixture->directory, number);
    mkdir(path, 0777);
    snprintf(inside, sizeof(inside), "%s/adapter_model.safetensors", path);
    write_file(file, inside, 8);
    snprintf(inside, sizeof(inside), "%s/adapter_config.json", path);
    temp_write(inside, config, strlen(config));
    if (adapter_open(&fixture->adapters[number], path, false, NULL, &fixture->error))
        fail_msg("%s", fixture->error.text);
    fixture->used[number] = (struct plan_adapter){ &fixture->adapters[number], 1.0 };
    fixture->adapter_count++;
}

static inline int make_plan(struct fixture *fixture, const struct plan_options *options,
                            int config_tied)
{
    const struct log log = { remember, fixture };
    const struct config_facts facts = { .tied = config_tied };

    plan_release(&fixture->plan);
    return plan_make(&fixture->plan, &fixture->model, fixture->used, fixture->adapter_count,
                     options, &facts, &log, &fixture->error);
}

static const struct plan_options keep = { .max_shard_bytes = SHARD_MAX };

/* Two large targets with other tensors around them. */
static inline struct fixture *two_targets(uint64_t residue)
{
    struct fixture *fixture = begin();
    struct made_file base = { 0 };
    struct made_file adapter = { 0 };

    add(&base, "first.norm", DTYPE_F32, 3, 5);
    add(&base, "a.proj.weight", DTYPE_BF16, 3000, 4000);
    add(&base, "middle.norm", DTYPE_U8, 1, 7);
    add(&base, "b.proj.weight", DTYPE_BF16, 4000, 3000);
    make_base(fixture, &base, residue);
    add_pair(&adapter, "a.proj", 3000, 4000);
    add_pair(&adapter, "b.proj", 4000, 3000);
    make_adapter(fixture, &adapter, CONFIG("[\"proj\"]"));
    return fixture;
}

static inline int fit(struct fixture *fixture, uint64_t budget, unsigned threads)
{
    return plan_fit_memory(&fixture->plan, budget, threads, 4, 0, &fixture->error);
}

#endif

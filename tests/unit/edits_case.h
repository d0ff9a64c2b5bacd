/*
 * edits_case.h - a small base, a small adapter, and what the edits make of them
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_UNIT_EDITS_CASE_H
#define TESTS_UNIT_EDITS_CASE_H

#include "adapter/edit.h"
#include "base/bytes.h"
#include "base/text.h"
#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define P "base_model.model."
#define TENSORS_MAX 10

struct made {
    const char *name;
    enum dtype dtype;
    uint64_t shape[5];
    size_t shape_count;
};

#define TENSOR(name, dtype, ...)                                                                   \
    {                                                                                              \
        name, dtype, { __VA_ARGS__ }, sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t)       \
    }
#define T(name, ...) TENSOR(name, DTYPE_F32, __VA_ARGS__)
#define A(module, ...) T(P module ".lora_A.weight", __VA_ARGS__)
#define B(module, ...) T(P module ".lora_B.weight", __VA_ARGS__)

/* What a test gives. */
struct given {
    const char *config; /* fields of adapter_config.json behind peft_type, r = 2 and alpha = 6 */
    struct made adapter[TENSORS_MAX];
    struct made base[TENSORS_MAX];
    int tied; /* of the base's configuration */
    const char *model_type;
    const char *architecture;
    bool allow_unused;
};

#define ADAPTER(...) .adapter = { __VA_ARGS__ }
#define BASE(...) .base = { __VA_ARGS__ }

/* What comes of it. */
struct made_edits {
    struct adapter adapter;
    struct model model;
    struct adapter_edits edits;
    struct text said;
    struct error err;
    int status;
    float *data; /* of the adapter's file */
};

/* Whole numbers of both signs, so that sums are exact. */
static void write_tensors(const char *name, const struct made *tensors)
{
    struct text json = { 0 };
    struct text bytes = { 0 };
    uint8_t prefix[ST_PREFIX_BYTES];
    uint64_t offset = 0;

    st_emit_begin(&json, NULL, 0);
    for (size_t i = 0; i < TENSORS_MAX && tensors[i].name; i++) {
        uint64_t size = dtype_bytes(tensors[i].dtype);

        for (size_t d = 0; d < tensors[i].shape_count; d++)
            size *= tensors[i].shape[d];
        st_emit_tensor(&json, tensors[i].name, strlen(tensors[i].name), tensors[i].dtype,
                       tensors[i].shape, tensors[i].shape_count, offset, size);
        offset += size;
    }
    st_emit_end(&json, 0, 8);
    store_le64(prefix, json.bytes);
    text_add(&bytes, (const char *)prefix, sizeof(prefix));
    text_add(&bytes, json.data, json.bytes);
    for (uint64_t i = 0; i < offset / sizeof(float) + 1; i++) {
        float value = (float)((i * 7919 + i * i * 31) % 13) - 6;

        text_add(&bytes, (const char *)&value, sizeof(value));
    }
    assert_false(bytes.failed);
    scratch_write(name, bytes.data, json.bytes + sizeof(prefix) + offset);
    text_release(&json);
    text_release(&bytes);
}

static void listen(void *context, enum log_level level, const char *sentence)
{
    struct made_edits *out = context;

    if (level < LOG_DETAIL)
        text_addf(&out->said, "%s\n", sentence);
}

/* The caller calls forget(). */
static void make(struct made_edits *out, const struct given *given)
{
    struct config_facts facts = { .tied = given->tied };
    struct edit_options options = { .facts = &facts, .allow_unused = given->allow_unused };
    const struct log log = { listen, out };
    struct text config = { 0 };
    FILE *file;

    *out = (struct made_edits){ 0 };
    snprintf(facts.model_type, sizeof(facts.model_type), "%s",
             given->model_type ? given->model_type : "llama");
    snprintf(facts.architecture, sizeof(facts.architecture), "%s",
             given->architecture ? given->architecture : "LlamaForCausalLM");
    text_addf(
        &config, "{%s%s}",
        strstr(given->config, "peft_type") ? "" : "\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":6",
        given->config);
    scratch_write("a/adapter_config.json", config.data, config.bytes);
    text_release(&config);
    write_tensors("a/adapter_model.safetensors", given->adapter);
    write_tensors("model.safetensors", given->base);
    if (adapter_open(&out->adapter, in_scratch("a"), given->allow_unused, NULL, &out->err))
        fail_msg("%s", out->err.text);
    if (model_open(&out->model, in_scratch("model.safetensors"), NULL, &out->err))
        fail_msg("%s", out->err.text);
    out->data = calloc(out->adapter.header.data_bytes + 1, 1);
    file = fopen(in_scratch("a/adapter_model.safetensors"), "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)out->adapter.header.data_start, SEEK_SET), 0);
    assert_int_equal(fread(out->data, 1, out->adapter.header.data_bytes, file),
                     out->adapter.header.data_bytes);
    fclose(file);
    out->status = adapter_make_edits(&out->edits, &out->adapter, &out->model, &options, &log,
                                     &out->err);
}

static void forget(struct made_edits *made)
{
    adapter_edits_release(&made->edits);
    adapter_release(&made->adapter);
    model_release(&made->model);
    text_release(&made->said);
    free(made->data);
}

/* The elements of a tensor of the adapter, by its name without "base_model.model.". */
static const float *factor(const struct made_edits *made, const char *name)
{
    const struct st_header *header = &made->adapter.header;

    for (size_t i = 0; i < header->tensor_count; i++) {
        if (strcmp(st_name(header, &header->tensors[i]) + strlen(P), name) == 0)
            return made->data + header->tensors[i].data_offset / sizeof(float);
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static uint32_t tensor_index(const struct made_edits *made, const char *name)
{
    const struct st_header *header = &made->adapter.header;
    uint32_t i = 0;

    while (i < header->tensor_count &&
           strcmp(st_name(header, &header->tensors[i]) + strlen(P), name) != 0)
        i++;
    return i;
}

/* The one edit of this kind and side of a tensor of the base; NULL if there is none. */
static const struct adapter_edit *find_edit(const struct made_edits *made, const char *name,
                                            enum edit_kind kind, enum edit_side side)
{
    const struct adapter_edit *found = NULL;

    for (size_t i = 0; i < made->edits.count; i++) {
        const struct adapter_edit *edit = &made->edits.list[i];
        bool is_new = edit->side == EDIT_UNTIED && edit->new_name;
        const char *its = is_new ? edit->new_name
                                 : st_name(model_header(&made->model, edit->tensor),
                                           model_tensor(&made->model, edit->tensor));

        if (strcmp(its, name) != 0 || edit->kind != kind || edit->side != side)
            continue;
        assert_null(found);
        found = edit;
    }
    return found;
}

/* Element (i, k) of a factor, as edit.h defines it. */
static double element(const struct made_edits *made, const struct factor_view *view, uint32_t rank,
                      uint64_t i, uint64_t k)
{
    const struct st_tensor *tensor;
    uint64_t j = (i - view->first) / view->step;
    uint64_t at = j * view->index_stride + k * view->rank_stride;

    if (i < view->first || (i - view->first) % view->step != 0 || j >= view->count)
        return 0;
    if (view->tensor == EDIT_ALL_ONES)
        return 1;
    if (view->blocks > 1) {
        uint64_t wide = view->count / view->blocks;
        uint64_t deep = rank / view->blocks;

        assert_true(view->first == 0 && view->step == 1);
        if (j / wide != k / deep)
            return 0;
        at = k / deep * wide * deep + j % wide * view->index_stride + k % deep * view->rank_stride;
    }
    tensor = &made->adapter.header.tensors[view->tensor];
    at += view->offset;
    assert_true(at < tensor->element_count);
    return made->data[tensor->data_offset / sizeof(float) + at];
}

/* The delta of an edit; the caller frees it. */
static double *expand(const struct made_edits *made, const struct adapter_edit *edit)
{
    double *delta = calloc(edit->rows * edit->cols, sizeof(*delta));

    assert_non_null(delta);
    for (uint64_t i = 0; i < edit->row_count; i++) {
        for (uint64_t j = 0; j < edit->cols; j++) {
            double sum = 0;

            for (uint64_t k = 0; k < edit->rank; k++)
                sum += element(made, &edit->left, edit->rank, i, k) *
                       element(made, &edit->right, edit->rank, j, k);
            delta[(edit->row_first + i) * edit->cols + j] = edit->scale * sum;
        }
    }
    return delta;
}

#endif

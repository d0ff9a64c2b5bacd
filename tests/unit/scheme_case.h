/*
 * scheme_case.h - small bases in real files, tensor by tensor, and what scheme_read_base() says
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_UNIT_SCHEME_CASE_H
#define TESTS_UNIT_SCHEME_CASE_H

#include "base/bytes.h"
#include "io_temp.h"
#include "scheme/scheme.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#define TENSORS_MAX 64
#define BNB(shape_text)                                                                            \
    "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": " shape_text \
    "}"

/* `data` NULL: zeros.  Shard 0 or 1. */
struct made {
    const char *name;
    enum dtype dtype;
    int rank;
    uint64_t shape[4];
    const void *data;
    int shard;
};

struct made_base {
    struct made tensors[TENSORS_MAX];
    size_t count;
    const char *config;
    const char *extra;
    bool grows; /* the second shard, once its header was read */
};

static char *made_directory;

static inline void made_add(struct made_base *base, struct made tensor)
{
    assert_true(base->count < TENSORS_MAX);
    base->tensors[base->count++] = tensor;
}

static inline struct made *made_find(struct made_base *base, const char *name)
{
    for (size_t i = 0; i < base->count; i++) {
        if (strcmp(base->tensors[i].name, name) == 0)
            return &base->tensors[i];
    }
    fail_msg("there is no '%s'", name);
    return NULL;
}

static inline void made_drop(struct made_base *base, const char *name)
{
    struct made *tensor = made_find(base, name);

    *tensor = base->tensors[--base->count];
}

static inline uint64_t made_bytes(const struct made *tensor)
{
    uint64_t bits = dtype_bits(tensor->dtype);

    for (int i = 0; i < tensor->rank; i++)
        bits *= tensor->shape[i];
    return bits / 8;
}

/* Bytes of one shard; false if it has no tensor. */
static inline bool made_write(const struct made_base *base, int shard, const char *path,
                              struct text *index, const char *file)
{
    struct text json = { 0 };
    struct text out = { 0 };
    uint64_t offset = 0;
    uint8_t prefix[8];

    st_emit_begin(&json, NULL, 0);
    for (size_t i = 0; i < base->count; i++) {
        const struct made *t = &base->tensors[i];

        if (t->shard != shard)
            continue;
        st_emit_tensor(&json, t->name, strlen(t->name), t->dtype, t->shape, (size_t)t->rank, offset,
                       made_bytes(t));
        offset += made_bytes(t);
        text_addf(index, "%s\"%s\": \"%s\"", index->bytes ? ", " : "", t->name, file);
    }
    st_emit_end(&json, 0, 8);
    store_le64(prefix, json.bytes);
    text_add(&out, (const char *)prefix, 8);
    text_add(&out, json.data, json.bytes);
    for (size_t i = 0; i < base->count; i++) {
        const struct made *t = &base->tensors[i];
        static const char zeros[1 << 18];

        if (t->shard == shard) {
            assert_true(made_bytes(t) <= sizeof(zeros));
            text_add(&out, t->data ? t->data : zeros, (size_t)made_bytes(t));
        }
    }
    assert_false(out.failed);
    temp_write(path, out.data, out.bytes);
    text_release(&json);
    text_release(&out);
    return true;
}

static inline int made_read(struct scheme_base *out, const struct made_base *base,
                            struct error *err)
{
    static const char *const files[] = { "a.safetensors", "b.safetensors" };
    struct text index = { 0 };
    struct text whole = { 0 };
    struct model model = { 0 };
    char path[4096];
    int status;

    for (int shard = 0; shard < 2; shard++) {
        snprintf(path, sizeof(path), "%s/%s", made_directory, files[shard]);
        made_write(base, shard, path, &index, files[shard]);
    }
    text_addf(&whole, "{\"weight_map\": {%s}}", index.data ? index.data : "");
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", made_directory);
    temp_write(path, whole.data, whole.bytes);
    text_release(&index);
    text_release(&whole);
    status = model_open(&model, made_directory, NULL, err);
    assert_int_equal(status, 0);
    if (base->grows) {
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s", made_directory, files[1]);
        file = fopen(path, "a");
        assert_true(file && fputc(0, file) == 0 && fclose(file) == 0);
    }
    status = scheme_read_base(out, &model, base->config, base->config ? strlen(base->config) : 0,
                              base->extra, base->extra ? strlen(base->extra) : 0, NULL, err);
    model_release(&model);
    return status;
}

/* ERR_FORMAT, and a sentence with all of these words (the last is NULL). */
static inline void made_refuses(const struct made_base *base, ...)
{
    struct scheme_base out = { 0 };
    struct error err = { 0 };
    const char *word;
    va_list words;

    if (made_read(&out, base, &err) == 0)
        fail_msg("it was taken as %s", out.quantised ? out.summary : "not quantised");
    assert_int_equal(err.code, ERR_FORMAT);
    assert_null(out.tensors);
    va_start(words, base);
    while ((word = va_arg(words, const char *)) != NULL) {
        if (!strstr(err.text, word))
            fail_msg("'%s' is not in: %s", word, err.text);
    }
    va_end(words);
}

static inline struct scheme_base made_opens(const struct made_base *base)
{
    struct scheme_base out = { 0 };
    struct error err = { 0 };

    if (made_read(&out, base, &err))
        fail_msg("%s", err.text);
    return out;
}

/* A tensor of the view with what is known of its storage; *dtype and shape are those of the view.
 */
static inline const struct scheme_tensor *
made_tensor(const struct scheme_base *base, const char *name, const struct st_tensor **view)
{
    struct model_ref ref;
    size_t place = 0;

    if (!model_find(&base->view, name, strlen(name), &ref))
        fail_msg("the view has no '%s'", name);
    for (uint32_t i = 0; i < ref.shard; i++)
        place += base->view.shards[i].header.tensor_count;
    if (view)
        *view = model_tensor(&base->view, ref);
    return &base->tensors[place + ref.tensor];
}

static inline void made_shape_is(const struct scheme_base *base, const char *name, enum dtype dtype,
                                 int rank, ...)
{
    const struct st_tensor *view;
    struct model_ref ref;
    va_list sizes;

    made_tensor(base, name, &view);
    assert_true(model_find(&base->view, name, strlen(name), &ref));
    assert_int_equal(view->dtype, dtype);
    assert_int_equal(view->shape_count, rank);
    va_start(sizes, rank);
    for (int i = 0; i < rank; i++)
        assert_int_equal(st_shape(model_header(&base->view, ref), view)[i], va_arg(sizes, int));
    va_end(sizes);
    assert_int_equal(view->data_bytes, view->element_count * dtype_bytes(dtype));
}

static inline int made_set_up(void **state)
{
    (void)state;
    made_directory = temp_make("/tmp");
    return 0;
}

static inline int made_tear_down(void **state)
{
    (void)state;
    temp_remove(made_directory);
    return 0;
}

#endif

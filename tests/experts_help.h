/*
 * experts_help.h - what the tests of experts share: bases and adapters in memory, and their deltas
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_EXPERTS_HELP_H
#define TESTS_EXPERTS_HELP_H

#include "adapter/edits_internal.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MADE_MAX 40
#define L "model.layers.0."

/* A tensor of the base, BF16 unless said otherwise. */
struct made {
    const char *name;
    uint64_t shape[3];
    enum dtype dtype;
};

/* A pair of the adapter: A [rows, in], B [out, rows]. */
struct made_pair {
    const char *module;
    uint64_t rows, in, out;
    uint32_t depth;
    bool parameter;
};

struct world {
    struct model model;
    struct model_shard shard;
    struct adapter adapter;
    struct config_facts facts;
    struct edit_options options;
    struct adapter_replicas replicas;
    struct edits_context context;
    struct adapter_edits edits;
    struct error err;
};

static inline size_t dimensions(const uint64_t shape[3])
{
    return shape[2] ? 3 : shape[1] ? 2 : 1;
}

static inline void make_header(struct st_header *header, const struct made *tensors, size_t count)
{
    struct text json = { 0 };
    struct error err = { 0 };
    uint64_t offset = 0;

    st_emit_begin(&json, NULL, 0);
    for (size_t i = 0; i < count; i++) {
        enum dtype dtype = tensors[i].dtype ? tensors[i].dtype : DTYPE_BF16;
        uint64_t size = dtype_bytes(dtype);

        for (size_t d = 0; d < dimensions(tensors[i].shape); d++)
            size *= tensors[i].shape[d];
        st_emit_tensor(&json, tensors[i].name, strlen(tensors[i].name), dtype, tensors[i].shape,
                       dimensions(tensors[i].shape), offset, size);
        offset += size;
    }
    st_emit_end(&json, 0, 8);
    assert_int_equal(st_header_parse(header, json.data, json.bytes, offset, &err), 0);
    text_release(&json);
}

static const struct st_header *sorted_header;

static inline int compare_refs(const void *left, const void *right)
{
    const struct model_ref *a = left;
    const struct model_ref *b = right;

    return strcmp(st_name(sorted_header, &sorted_header->tensors[a->tensor]),
                  st_name(sorted_header, &sorted_header->tensors[b->tensor]));
}

static inline void make_base(struct world *world, const struct made *tensors, size_t count)
{
    make_header(&world->shard.header, tensors, count);
    world->model.shards = &world->shard;
    world->model.shard_count = 1;
    world->model.tensor_count = count;
    world->model.by_name = calloc(count, sizeof(*world->model.by_name));
    assert_non_null(world->model.by_name);
    for (size_t i = 0; i < count; i++)
        world->model.by_name[i].tensor = (uint32_t)i;
    sorted_header = &world->shard.header;
    qsort(world->model.by_name, count, sizeof(*world->model.by_name), compare_refs);
}

static inline void make_adapter(struct world *world, const struct made_pair *pairs, size_t count,
                                const char *fields)
{
    struct adapter *adapter = &world->adapter;
    struct made tensors[2 * MADE_MAX] = { 0 };
    struct text names[2 * MADE_MAX] = { 0 };
    struct text config = { 0 };
    struct error err = { 0 };

    text_addf(&config, "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6%s}", fields);
    assert_int_equal(adapter_config_parse(&adapter->config, config.data, config.bytes, NULL, &err),
                     0);
    text_release(&config);
    adapter->pairs = calloc(count, sizeof(*adapter->pairs));
    adapter->unused = calloc(2 * count, sizeof(*adapter->unused));
    assert_true(adapter->pairs && adapter->unused && count <= MADE_MAX);
    adapter->pair_count = count;
    for (size_t i = 0; i < count; i++) {
        struct adapter_pair *pair = &adapter->pairs[i];

        *pair = (struct adapter_pair){ .depth = pairs[i].depth,
                                       .parameter = pairs[i].parameter,
                                       .tensor_a = (uint32_t)(2 * i),
                                       .tensor_b = (uint32_t)(2 * i + 1),
                                       .tensor_b_bias = ADAPTER_NO_TENSOR,
                                       .tensor_magnitude = ADAPTER_NO_TENSOR,
                                       .tensor_base = ADAPTER_NO_TENSOR,
                                       .rank = (uint32_t)pairs[i].rows };
        pair->scale = pair->parameter ? 0 : 2.0;
        pair->module = strdup(pairs[i].module);
        for (int b = 0; b < 2; b++) {
            struct text *name = &names[2 * i + (size_t)b];

            text_addf(name, "base_model.model.%s", pairs[i].module);
            for (uint32_t d = 0; d < pairs[i].depth; d++)
                text_adds(name, ".base_layer");
            text_addf(name, ".lora_%c.weight", b ? 'B' : 'A');
            tensors[2 * i + (size_t)b] = (struct made){ .name = name->data, .dtype = DTYPE_F32 };
        }
        tensors[2 * i].shape[0] = pairs[i].rows;
        tensors[2 * i].shape[1] = pairs[i].in;
        tensors[2 * i + 1].shape[0] = pairs[i].out;
        tensors[2 * i + 1].shape[1] = pairs[i].rows;
    }
    make_header(&adapter->header, tensors, 2 * count);
    for (size_t i = 0; i < 2 * count; i++)
        text_release(&names[i]);
}

/* A base, an adapter and what its target_parameters are; `fields` are added to its configuration.
 */
static inline struct world *make(const struct made *tensors, size_t tensor_count,
                                 const struct made_pair *pairs, size_t pair_count,
                                 const char *fields, const char *const *parameters)
{
    struct world *world = calloc(1, sizeof(*world));

    assert_non_null(world);
    make_base(world, tensors, tensor_count);
    make_adapter(world, pairs, pair_count, fields);
    for (size_t i = 0; parameters && parameters[i]; i++) {
        struct adapter_config *config = &world->adapter.config;

        config->target_parameters = realloc(config->target_parameters,
                                            (i + 1) * sizeof(*config->target_parameters));
        assert_non_null(config->target_parameters);
        config->target_parameters[i] = strdup(parameters[i]);
        config->target_parameters_count = i + 1;
    }
    world->options.facts = &world->facts;
    world->context = (struct edits_context){ .adapter = &world->adapter,
                                             .model = &world->model,
                                             .options = &world->options,
                                             .replicas = &world->replicas };
    return world;
}

#define MAKE(base, pairs, fields, ...)                                                             \
    make(base, COUNT(base), pairs, COUNT(pairs), fields, (const char *const[]){ __VA_ARGS__, NULL })

static inline void set_model_type(struct world *world, const char *type)
{
    snprintf(world->facts.model_type, sizeof(world->facts.model_type), "%s", type);
}

static inline void set_version(struct world *world, const char *version)
{
    free(world->adapter.config.peft_version);
    world->adapter.config.peft_version = version ? strdup(version) : NULL;
}

static inline void release(struct world *world)
{
    adapter_edits_release(&world->edits);
    st_header_release(&world->shard.header);
    free(world->model.by_name);
    adapter_release(&world->adapter);
    free(world);
}

static inline int run(struct world *world, bool *all_handled)
{
    adapter_edits_release(&world->edits);
    world->err = (struct error){ 0 };
    *all_handled = true;
    for (size_t i = 0; i < world->adapter.pair_count; i++) {
        size_t before = world->edits.count;
        bool handled = false;
        int status = edits_of_experts(&world->edits, &handled, &world->context, (uint32_t)i,
                                      &world->err);

        if (status)
            return status;
        if (!handled)
            assert_int_equal(world->edits.count, before);
        *all_handled &= handled;
    }
    return 0;
}

static inline void run_well(struct world *world)
{
    bool handled;
    int status = run(world, &handled);

    if (status)
        print_error("%s\n", world->err.text);
    assert_int_equal(status, 0);
    assert_true(handled);
}

static inline void run_badly(struct world *world, int code, const char *part)
{
    bool handled;

    assert_int_equal(run(world, &handled), code);
    assert_int_equal(world->err.code, code);
    if (!strstr(world->err.text, part))
        print_error("%s\n", world->err.text);
    assert_non_null(strstr(world->err.text, part));
}

/* What stands in the adapter: no two elements near each other are alike. */
static inline double stored(uint32_t tensor, uint64_t element)
{
    return (double)((tensor * 7919u + element * 104729u + element * element * 31u) % 1009u) /
               1009.0 -
           0.5;
}

static inline double view_element(const struct world *world, const struct factor_view *view,
                                  uint32_t rank, uint64_t i, uint64_t k)
{
    uint64_t j;
    uint64_t at;

    assert_int_equal(view->blocks, 1);
    if (i < view->first || (i - view->first) % view->step)
        return 0;
    j = (i - view->first) / view->step;
    if (j >= view->count)
        return 0;
    assert_true(k < rank);
    at = view->offset + j * view->index_stride + k * view->rank_stride;
    assert_true(at < world->adapter.header.tensors[view->tensor].element_count);
    return stored(view->tensor, at);
}

/* The sum of all deltas on one tensor of the base, dense; the caller frees it. */
static inline double *dense(const struct world *world, const char *name)
{
    struct model_ref ref;
    double *sum;

    assert_true(model_find(&world->model, name, strlen(name), &ref));
    sum = calloc(model_tensor(&world->model, ref)->element_count, sizeof(*sum));
    assert_non_null(sum);
    for (size_t n = 0; n < world->edits.count; n++) {
        const struct adapter_edit *edit = &world->edits.list[n];

        if (edit->tensor.tensor != ref.tensor)
            continue;
        assert_int_equal(edit->kind, EDIT_DELTA);
        assert_int_equal(edit->source, ADAPTER_NO_TENSOR);
        assert_int_equal(edit->norm, EDIT_NO_NORM);
        assert_int_equal(edit->rows * edit->cols, model_tensor(&world->model, ref)->element_count);
        assert_true(edit->row_first + edit->row_count <= edit->rows);
        for (uint64_t i = 0; i < edit->row_count; i++) {
            for (uint64_t c = 0; c < edit->cols; c++) {
                double total = 0;

                for (uint64_t k = 0; k < edit->rank; k++)
                    total += view_element(world, &edit->left, edit->rank, i, k) *
                             view_element(world, &edit->right, edit->rank, c, k);
                sum[(edit->row_first + i) * edit->cols + c] += edit->scale * total;
            }
        }
    }
    return sum;
}

/* Factors of the pair of this module and depth. */
struct factors {
    uint32_t a, b;
    uint64_t rows, in;
};

static inline struct factors factors_of(const struct world *world, const char *module,
                                        uint32_t depth)
{
    for (size_t i = 0; i < world->adapter.pair_count; i++) {
        const struct adapter_pair *pair = &world->adapter.pairs[i];
        const struct st_header *header = &world->adapter.header;

        if (strcmp(pair->module, module) == 0 && pair->depth == depth)
            return (struct factors){ pair->tensor_a, pair->tensor_b, pair->rank,
                                     st_shape(header, &header->tensors[pair->tensor_a])[1] };
    }
    fail();
    return (struct factors){ 0 };
}

/* (B_e A_e)[o][i], as PEFT packs them: rows e * r + k of A, columns k * E + e of B. */
static inline double peft(struct factors f, uint64_t experts, uint64_t e, uint64_t o, uint64_t i)
{
    uint64_t r = f.rows / experts;
    double sum = 0;

    for (uint64_t k = 0; k < r; k++)
        sum += stored(f.b, o * f.rows + k * experts + e) * stored(f.a, (e * r + k) * f.in + i);
    return sum;
}

static inline void check_near(double left, double right)
{
    assert_true(left - right < 1e-12 && right - left < 1e-12);
}

/* Tensor `name` [rows, cols] gets scale * (B_e A_e)[first + i][j]. */
static inline void check_single(const struct world *world, const char *name, uint64_t rows,
                                uint64_t cols, struct factors f, uint64_t experts, uint64_t e,
                                uint64_t first, double scale)
{
    double *sum = dense(world, name);

    for (uint64_t i = 0; i < rows; i++) {
        for (uint64_t j = 0; j < cols; j++)
            check_near(sum[i * cols + j], scale * peft(f, experts, e, first + i, j));
    }
    free(sum);
}

/* Tensor `name` [experts, rows, cols] gets B_e A_e, or its transpose. */
static inline void check_fused(const struct world *world, const char *name, uint64_t experts,
                               uint64_t rows, uint64_t cols, struct factors f, bool transposed,
                               double scale)
{
    double *sum = dense(world, name);

    for (uint64_t e = 0; e < experts; e++) {
        for (uint64_t i = 0; i < rows; i++) {
            for (uint64_t j = 0; j < cols; j++)
                check_near(
                    sum[(e * rows + i) * cols + j],
                    scale * (transposed ? peft(f, experts, e, j, i) : peft(f, experts, e, i, j)));
        }
    }
    free(sum);
}

#define PEFT_021 ",\"peft_version\":\"0.21.2\""

/* H 5, I 4, 2 experts. */
static const struct made mixtral[] = {
    { L "block_sparse_moe.experts.0.w1.weight", { 4, 5 }, 0 },
    { L "block_sparse_moe.experts.0.w2.weight", { 5, 4 }, 0 },
    { L "block_sparse_moe.experts.0.w3.weight", { 4, 5 }, 0 },
    { L "block_sparse_moe.experts.1.w1.weight", { 4, 5 }, 0 },
    { L "block_sparse_moe.experts.1.w2.weight", { 5, 4 }, 0 },
    { L "block_sparse_moe.experts.1.w3.weight", { 4, 5 }, 0 },
    { L "block_sparse_moe.gate.weight", { 2, 5 }, 0 },
};

static const struct made qwen[] = {
    { L "mlp.experts.0.gate_proj.weight", { 4, 5 }, 0 },
    { L "mlp.experts.0.up_proj.weight", { 4, 5 }, 0 },
    { L "mlp.experts.0.down_proj.weight", { 5, 4 }, 0 },
    { L "mlp.experts.1.gate_proj.weight", { 4, 5 }, 0 },
    { L "mlp.experts.1.up_proj.weight", { 4, 5 }, 0 },
    { L "mlp.experts.1.down_proj.weight", { 5, 4 }, 0 },
    { L "mlp.gate.weight", { 2, 5 }, 0 },
    { L "mlp.shared_expert.gate_proj.weight", { 4, 5 }, 0 },
    { L "mlp.shared_experts.up_proj.weight", { 4, 5 }, 0 },
    { "model.layers.1.mlp.gate_proj.weight", { 4, 5 }, 0 },
};

static const struct made upright[] = {
    { L "mlp.experts.gate_up_proj", { 2, 8, 5 }, 0 },
    { L "mlp.experts.down_proj", { 2, 5, 4 }, 0 },
};

static const struct made transposed[] = {
    { L "mlp.experts.gate_up_proj", { 2, 5, 8 }, 0 },
    { L "mlp.experts.gate_up_proj_bias", { 2, 8 }, 0 },
    { L "mlp.experts.down_proj", { 2, 4, 5 }, 0 },
    { L "mlp.experts.down_proj_bias", { 2, 5 }, 0 },
};

static const struct made granite[] = {
    { L "block_sparse_moe.input_linear.weight", { 2, 8, 5 }, 0 },
    { L "block_sparse_moe.output_linear.weight", { 2, 5, 4 }, 0 },
};

/* Factors of fused parameters as PEFT saves them today: B A is [out, in]. */
#define FUSED_PAIRS(module)                                                                        \
    {                                                                                              \
        { module, 6, 4, 5, 0, true },                                                              \
        {                                                                                          \
            module, 12, 5, 8, 1, true                                                              \
        }                                                                                          \
    }
#define GATE_UP_DOUBLE                                                                             \
    PEFT_021 ",\"rank_pattern\":{\".*\\\\.gate_up_proj\":6},"                                      \
             "\"alpha_pattern\":{\".*\\\\.gate_up_proj\":15}"

#endif

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

static size_t dimensions(const uint64_t shape[3])
{
    return shape[2] ? 3 : shape[1] ? 2 : 1;
}

static void make_header(struct st_header *header, const struct made *tensors, size_t count)
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

static int compare_refs(const void *left, const void *right)
{
    const struct model_ref *a = left;
    const struct model_ref *b = right;

    return strcmp(st_name(sorted_header, &sorted_header->tensors[a->tensor]),
                  st_name(sorted_header, &sorted_header->tensors[b->tensor]));
}

static void make_base(struct world *world, const struct made *tensors, size_t count)
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

static void make_adapter(struct world *world, const struct made_pair *pairs, size_t count,
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
static struct world *make(const struct made *tensors, size_t tensor_count,
                          const struct made_pair *pairs, size_t pair_count, const char *fields,
                          const char *const *parameters)
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

static void set_model_type(struct world *world, const char *type)
{
    snprintf(world->facts.model_type, sizeof(world->facts.model_type), "%s", type);
}

static void set_version(struct world *world, const char *version)
{
    free(world->adapter.config.peft_version);
    world->adapter.config.peft_version = version ? strdup(version) : NULL;
}

static void release(struct world *world)
{
    adapter_edits_release(&world->edits);
    st_header_release(&world->shard.header);
    free(world->model.by_name);
    adapter_release(&world->adapter);
    free(world);
}

static int run(struct world *world, bool *all_handled)
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

static void run_well(struct world *world)
{
    bool handled;
    int status = run(world, &handled);

    if (status)
        print_error("%s\n", world->err.text);
    assert_int_equal(status, 0);
    assert_true(handled);
}

static void run_badly(struct world *world, int code, const char *part)
{
    bool handled;

    assert_int_equal(run(world, &handled), code);
    assert_int_equal(world->err.code, code);
    if (!strstr(world->err.text, part))
        print_error("%s\n", world->err.text);
    assert_non_null(strstr(world->err.text, part));
}

/* What stands in the adapter: no two elements near each other are alike. */
static double stored(uint32_t tensor, uint64_t element)
{
    return (double)((tensor * 7919u + element * 104729u + element * element * 31u) % 1009u) /
               1009.0 -
           0.5;
}

static double view_element(const struct world *world, const struct factor_view *view, uint32_t rank,
                           uint64_t i, uint64_t k)
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
static double *dense(const struct world *world, const char *name)
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

static struct factors factors_of(const struct world *world, const char *module, uint32_t depth)
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
static double peft(struct factors f, uint64_t experts, uint64_t e, uint64_t o, uint64_t i)
{
    uint64_t r = f.rows / experts;
    double sum = 0;

    for (uint64_t k = 0; k < r; k++)
        sum += stored(f.b, o * f.rows + k * experts + e) * stored(f.a, (e * r + k) * f.in + i);
    return sum;
}

static void check_near(double left, double right)
{
    assert_true(left - right < 1e-12 && right - left < 1e-12);
}

/* Tensor `name` [rows, cols] gets scale * (B_e A_e)[first + i][j]. */
static void check_single(const struct world *world, const char *name, uint64_t rows, uint64_t cols,
                         struct factors f, uint64_t experts, uint64_t e, uint64_t first,
                         double scale)
{
    double *sum = dense(world, name);

    for (uint64_t i = 0; i < rows; i++) {
        for (uint64_t j = 0; j < cols; j++)
            check_near(sum[i * cols + j], scale * peft(f, experts, e, first + i, j));
    }
    free(sum);
}

/* Tensor `name` [experts, rows, cols] gets B_e A_e, or its transpose. */
static void check_fused(const struct world *world, const char *name, uint64_t experts,
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

static void test_fused_factors_on_single_experts(void **state)
{
    static const struct made_pair pairs[] = FUSED_PAIRS(L "mlp.experts");
    static const struct {
        const struct made *base;
        size_t count;
        const char *format;
        const char *parts[3];
    } bases[] = {
        { mixtral,
          COUNT(mixtral),
          L "block_sparse_moe.experts.%d.%s.weight",
          { "w1", "w3", "w2" } },
        { qwen,
          COUNT(qwen),
          L "mlp.experts.%d.%s.weight",
          { "gate_proj", "up_proj", "down_proj" } },
    };

    (void)state;
    for (size_t n = 0; n < COUNT(bases); n++) {
        struct world *world = make(bases[n].base, bases[n].count, pairs, 2, GATE_UP_DOUBLE,
                                   (const char *const[]){ "down_proj", "gate_up_proj", NULL });
        struct factors inner = factors_of(world, L "mlp.experts", 1);
        struct factors outer = factors_of(world, L "mlp.experts", 0);

        run_well(world);
        assert_int_equal(world->edits.count, 6);
        for (int e = 0; e < 2; e++) {
            for (int part = 0; part < 3; part++) {
                char name[128];

                snprintf(name, sizeof(name), bases[n].format, e, bases[n].parts[part]);
                if (part < 2)
                    check_single(world, name, 4, 5, inner, 2, (uint64_t)e, part ? 4 : 0, 2.5);
                else
                    check_single(world, name, 5, 4, outer, 2, (uint64_t)e, 0, 2.0);
            }
        }
        release(world);
    }
}

static void test_old_factors_on_single_experts(void **state)
{
    /* PEFT before 0.19: A spans the outputs. */
    static const struct made_pair pairs[] = { { L "mlp.experts", 6, 5, 4, 0, true },
                                              { L "mlp.experts", 6, 8, 5, 1, true } };
    struct world *world = MAKE(qwen, pairs, ",\"peft_version\":\"0.18.0\"", "experts.gate_up_proj",
                               "experts.down_proj");
    struct factors inner = factors_of(world, L "mlp.experts", 1);
    double *sum;

    (void)state;
    run_well(world);
    sum = dense(world, L "mlp.experts.1.up_proj.weight");
    for (uint64_t i = 0; i < 4; i++) {
        for (uint64_t j = 0; j < 5; j++)
            check_near(sum[i * 5 + j], 2 * peft(inner, 2, 1, j, 4 + i));
    }
    free(sum);
    release(world);
}

static void test_fused_factors_on_fused_experts(void **state)
{
    static const struct made_pair today[] = FUSED_PAIRS(L "mlp.experts");
    static const struct made_pair in_granite[] = FUSED_PAIRS(L "block_sparse_moe.experts");
    /* llama4 beside PEFT 0.21: [E, in, out], but B A is [in, out]. */
    static const struct made_pair reversed[] = { { L "mlp.experts", 6, 5, 4, 0, true },
                                                 { L "mlp.experts", 6, 8, 5, 1, true } };
    struct world *world;

    (void)state;
    world = MAKE(upright, today, GATE_UP_DOUBLE, "gate_up_proj", "down_proj");
    run_well(world);
    assert_int_equal(world->edits.count, 4);
    check_fused(world, upright[0].name, 2, 8, 5, factors_of(world, L "mlp.experts", 1), false, 2.5);
    check_fused(world, upright[1].name, 2, 5, 4, factors_of(world, L "mlp.experts", 0), false, 2);
    release(world);

    world = MAKE(transposed, today, GATE_UP_DOUBLE, "gate_up_proj", "down_proj");
    run_well(world);
    check_fused(world, transposed[0].name, 2, 5, 8, factors_of(world, L "mlp.experts", 1), true,
                2.5);
    check_fused(world, transposed[2].name, 2, 4, 5, factors_of(world, L "mlp.experts", 0), true, 2);
    release(world);

    world = MAKE(transposed, reversed, PEFT_021, "gate_up_proj", "down_proj");
    run_well(world);
    check_fused(world, transposed[0].name, 2, 5, 8, factors_of(world, L "mlp.experts", 1), false,
                2);
    check_fused(world, transposed[2].name, 2, 4, 5, factors_of(world, L "mlp.experts", 0), false,
                2);
    release(world);

    world = MAKE(granite, in_granite, GATE_UP_DOUBLE, "gate_up_proj", "down_proj");
    run_well(world);
    check_fused(world, granite[0].name, 2, 8, 5, factors_of(world, in_granite[0].module, 1), false,
                2.5);
    check_fused(world, granite[1].name, 2, 5, 4, factors_of(world, in_granite[0].module, 0), false,
                2);
    release(world);
}

static void test_one_parameter(void **state)
{
    static const struct made_pair down[] = { { L "mlp.experts", 6, 4, 5, 0, true } };
    static const struct made_pair gate_up[] = { { L "mlp.experts", 6, 5, 8, 0, true } };
    struct world *world;

    (void)state;
    world = MAKE(upright, gate_up, PEFT_021, "mlp.experts.gate_up_proj");
    run_well(world);
    check_fused(world, upright[0].name, 2, 8, 5, factors_of(world, L "mlp.experts", 0), false, 2);
    release(world);

    /* Both are named, but only one has factors: the shape tells. */
    world = MAKE(upright, gate_up, PEFT_021, "gate_up_proj", "down_proj");
    run_well(world);
    check_fused(world, upright[0].name, 2, 8, 5, factors_of(world, L "mlp.experts", 0), false, 2);
    release(world);
    world = MAKE(upright, down, PEFT_021, "gate_up_proj", "down_proj");
    run_well(world);
    check_fused(world, upright[1].name, 2, 5, 4, factors_of(world, L "mlp.experts", 0), false, 2);
    release(world);
}

static void test_matrices(void **state)
{
    static const struct made_pair router[] = { { L "mlp.gate", 3, 5, 2, 0, true } };
    static const struct made_pair bias[] = { { L "mlp.experts", 3, 8, 2, 1, true },
                                             { L "mlp.experts", 3, 5, 2, 0, true } };
    struct world *world;

    (void)state;
    world = MAKE(qwen, router, PEFT_021, "gate.weight", "down_proj", "gate_up_proj");
    run_well(world);
    assert_int_equal(world->edits.count, 1);
    check_single(world, L "mlp.gate.weight", 2, 5, factors_of(world, L "mlp.gate", 0), 1, 0, 0, 2);
    release(world);

    world = MAKE(transposed, bias, PEFT_021, "down_proj_bias", "gate_up_proj_bias");
    run_well(world);
    check_single(world, transposed[1].name, 2, 8, factors_of(world, L "mlp.experts", 1), 1, 0, 0,
                 2);
    check_single(world, transposed[3].name, 2, 5, factors_of(world, L "mlp.experts", 0), 1, 0, 0,
                 2);
    release(world);
}

/* One expert's layers on a fused base: rows or columns of its slice, nothing elsewhere. */
static void check_halves(const struct world *world, bool is_transposed, bool interleaved)
{
    double *sum = dense(world, upright[0].name);
    struct factors halves[] = { factors_of(world, world->adapter.pairs[0].module, 0),
                                factors_of(world, world->adapter.pairs[1].module, 0) };

    for (uint64_t e = 0; e < 2; e++) {
        for (uint64_t o = 0; o < 8; o++) {
            uint64_t half = interleaved ? o % 2 : o / 4;
            uint64_t row = interleaved ? o / 2 : o % 4;

            for (uint64_t i = 0; i < 5; i++) {
                double value = sum[is_transposed ? (e * 5 + i) * 8 + o : (e * 8 + o) * 5 + i];

                check_near(value, e == 1 ? 2 * peft(halves[half], 1, 0, row, i) : 0);
            }
        }
    }
    free(sum);
    sum = dense(world, upright[1].name);
    for (uint64_t e = 0; e < 2; e++) {
        for (uint64_t o = 0; o < 5; o++) {
            for (uint64_t i = 0; i < 4; i++) {
                struct factors down = factors_of(world, world->adapter.pairs[2].module, 0);

                check_near(sum[is_transposed ? (e * 4 + i) * 5 + o : (e * 5 + o) * 4 + i],
                           e == 1 ? 2 * peft(down, 1, 0, o, i) : 0);
            }
        }
    }
    free(sum);
}

static void test_single_factors_on_fused_experts(void **state)
{
    static const struct made_pair pairs[] = {
        { L "mlp.experts.1.gate_proj", 3, 5, 4, 0, false },
        { L "mlp.experts.1.up_proj", 3, 5, 4, 0, false },
        { L "mlp.experts.1.down_proj", 3, 4, 5, 0, false },
    };
    static const struct made_pair w[] = {
        { L "block_sparse_moe.experts.1.w1", 3, 5, 4, 0, false },
        { L "block_sparse_moe.experts.1.w3", 3, 5, 4, 0, false },
        { L "block_sparse_moe.experts.1.w2", 3, 4, 5, 0, false },
    };
    struct world *world;

    (void)state;
    world = MAKE(upright, pairs, "", NULL);
    run_well(world);
    assert_int_equal(world->edits.count, 3);
    check_halves(world, false, false);
    assert_int_equal(world->edits.list[1].row_first, 12);
    assert_int_equal(world->edits.list[1].row_count, 4);
    release(world);

    world = MAKE(upright, w, "", NULL);
    run_well(world);
    check_halves(world, false, false);
    release(world);

    world = MAKE(transposed, pairs, "", NULL);
    run_well(world);
    check_halves(world, true, false);
    release(world);

    world = MAKE(transposed, pairs, "", NULL);
    set_model_type(world, "gpt_oss");
    run_well(world);
    check_halves(world, true, true);
    release(world);
}

static void test_lists_of_linear_layers(void **state)
{
    static const struct made_pair pairs[] = {
        { L "mlp.experts.down_projs.0", 3, 4, 5, 0, false },
        { L "mlp.experts.gate_up_projs.0", 3, 5, 8, 0, false },
    };
    struct world *world = MAKE(transposed, pairs, "", NULL);
    double *sum;

    (void)state;
    set_model_type(world, "gpt_oss");
    run_well(world);
    sum = dense(world, transposed[0].name);
    for (uint64_t i = 0; i < 5; i++) {
        for (uint64_t o = 0; o < 8; o++)
            check_near(sum[i * 8 + o], 2 * peft(factors_of(world, pairs[1].module, 0), 1, 0, o, i));
    }
    free(sum);
    sum = dense(world, transposed[2].name);
    for (uint64_t i = 0; i < 4; i++) {
        for (uint64_t o = 0; o < 5; o++)
            check_near(sum[i * 5 + o], 2 * peft(factors_of(world, pairs[0].module, 0), 1, 0, o, i));
    }
    free(sum);
    release(world);
}

static void test_other_spellings(void **state)
{
    static const struct made_pair gates[] = { { L "mlp.experts.1.gate_proj", 3, 5, 4, 0, false },
                                              { L "mlp.experts.1.down_proj", 3, 4, 5, 0, false } };
    static const struct made_pair w[] = { { L "block_sparse_moe.experts.0.w3", 3, 5, 4, 0,
                                            false } };
    struct world *world;

    (void)state;
    world = MAKE(mixtral, gates, "", NULL);
    run_well(world);
    check_single(world, mixtral[3].name, 4, 5, factors_of(world, gates[0].module, 0), 1, 0, 0, 2);
    check_single(world, mixtral[4].name, 5, 4, factors_of(world, gates[1].module, 0), 1, 0, 0, 2);
    release(world);
    world = MAKE(qwen, w, "", NULL);
    run_well(world);
    check_single(world, qwen[1].name, 4, 5, factors_of(world, w[0].module, 0), 1, 0, 0, 2);
    release(world);
}

static void test_what_is_no_expert_of_ours(void **state)
{
    static const struct made_pair pairs[] = {
        { L "mlp.experts.1.gate_proj", 3, 5, 4, 0, false }, /* has a tensor of its own */
        { L "mlp.shared_expert.gate_proj", 3, 5, 4, 0, false },
        { L "mlp.shared_experts.up_proj", 3, 5, 4, 0, false },
        { "model.layers.1.mlp.gate_proj", 3, 5, 4, 0, false },
        { L "mlp.experts", 3, 5, 4, 0, false },
        { "model.layers.7.mlp.experts.0.gate_proj", 3, 5, 4, 0, false }, /* nowhere */
        { "experts.0", 3, 5, 4, 0, false },
        { "gate_proj", 3, 5, 4, 0, false },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(pairs); i++) {
        struct world *world = make(qwen, COUNT(qwen), &pairs[i], 1, "", NULL);
        bool handled;

        assert_int_equal(run(world, &handled), 0);
        assert_false(handled);
        release(world);
    }
}

/* Column e * r + k of B instead of k * E + e. */
static void check_grouped(const struct world *world)
{
    struct factors f = factors_of(world, L "mlp.experts", 0);
    double *sum = dense(world, upright[1].name);

    for (uint64_t e = 0; e < 2; e++) {
        for (uint64_t o = 0; o < 5; o++) {
            for (uint64_t i = 0; i < 4; i++) {
                double expected = 0;

                for (uint64_t k = 0; k < 3; k++)
                    expected += stored(f.b, o * 6 + e * 3 + k) * stored(f.a, (e * 3 + k) * 4 + i);
                check_near(sum[(e * 5 + o) * 4 + i], 2 * expected);
            }
        }
    }
    free(sum);
}

static void test_order_of_columns(void **state)
{
    static const struct made_pair pairs[] = { { L "mlp.experts", 6, 4, 5, 0, true } };
    static const struct {
        const char *fields;
        enum edit_b_layout option;
        int grouped; /* -1: refused */
        const char *part;
    } cases[] = {
        { PEFT_021, EDIT_B_AUTO, 0, "" },
        { PEFT_021, EDIT_B_EXPERT_MAJOR, 1, "" },
        { "", EDIT_B_AUTO, -1, "there is no 'peft_version'" },
        { "", EDIT_B_RANK_MAJOR, 0, "" },
        { PEFT_021 ",\"lora_B_layout\":\"rank_major\",\"auto_mapping\":{\"unsloth_fixed\":true}",
          EDIT_B_AUTO, 0, "" },
        { PEFT_021 ",\"lora_B_layout\":\"grouped_by_expert\"", EDIT_B_AUTO, 1, "" },
        { PEFT_021 ",\"lora_B_layout\":\"grouped_by_expert\"", EDIT_B_RANK_MAJOR, 0, "" },
        { PEFT_021 ",\"lora_B_layout\":\"diagonal\"", EDIT_B_AUTO, -1, "'diagonal'" },
        { PEFT_021 ",\"auto_mapping\":{\"unsloth_fixed\":true}", EDIT_B_AUTO, -1,
          "--lora-b-layout" },
        { PEFT_021 ",\"auto_mapping\":{\"unsloth_fixed\":true}", EDIT_B_EXPERT_MAJOR, 1, "" },
        { PEFT_021 ",\"auto_mapping\":{\"unsloth_fixed\":false}", EDIT_B_AUTO, 0, "" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct world *world = MAKE(upright, pairs, cases[i].fields, "down_proj");

        world->options.b_layout = cases[i].option;
        if (cases[i].grouped < 0) {
            run_badly(world, ERR_FORMAT, cases[i].part);
        } else {
            run_well(world);
            if (cases[i].grouped)
                check_grouped(world);
            else
                check_fused(world, upright[1].name, 2, 5, 4, factors_of(world, L "mlp.experts", 0),
                            false, 2);
        }
        release(world);
    }
}

static void test_order_of_columns_that_does_not_matter(void **state)
{
    static const struct made one[] = { { L "mlp.experts.down_proj", { 1, 5, 4 }, 0 } };
    static const struct made_pair of_one[] = { { L "mlp.experts", 3, 4, 5, 0, true } };
    static const struct made_pair of_rank_one[] = { { L "mlp.experts", 2, 4, 5, 0, true } };
    struct world *world;

    (void)state;
    world = MAKE(one, of_one, "", "down_proj");
    run_well(world);
    check_fused(world, one[0].name, 1, 5, 4, factors_of(world, L "mlp.experts", 0), false, 2);
    release(world);
    world = MAKE(upright, of_rank_one, ",\"rank_pattern\":{\"down_proj\":1}", "down_proj");
    run_well(world);
    check_fused(world, upright[1].name, 2, 5, 4, factors_of(world, L "mlp.experts", 0), false, 6);
    release(world);
}

/* GPT-OSS: the down projection is square, [E, 4, 4]; H 4, I 4. */
static const struct made square[] = {
    { L "mlp.experts.gate_up_proj", { 2, 4, 8 }, 0 },
    { L "mlp.experts.down_proj", { 2, 4, 4 }, 0 },
};

static void test_square_experts(void **state)
{
    static const struct made_pair both[] = { { L "mlp.experts", 6, 4, 4, 0, true },
                                             { L "mlp.experts", 6, 4, 8, 1, true } };
    static const struct made_pair reversed[] = { { L "mlp.experts", 6, 4, 4, 0, true },
                                                 { L "mlp.experts", 6, 8, 4, 1, true } };
    static const struct {
        const char *version;
        const char *type;
        int transposed; /* -1: refused */
    } cases[] = {
        { "0.17.1", "gpt_oss", 1 },
        { "0.18.1", "gpt_oss", 1 },
        { "0.19.0", "gpt_oss", -1 },
        { "0.21.2", "gpt_oss", -1 },
        { "0.18.1", "olmoe", 1 },
        { "0.19.0", "olmoe", 1 },
        { "0.19.1", "olmoe", 0 },
        { "0.21.2", "llama4_text", 0 },
        { "0.19.1.dev0", "olmoe", -1 },
        { "0.20.1.dev0@abc", "olmoe", 0 },
        { "0.21.2", "", -1 },
        { NULL, "olmoe", -1 },
        { "0.21", "olmoe", -1 },
        { "0.16.0", "olmoe", -1 },
        { "0.21.2", "qwen3_vl_moe", -1 },
        { "x", "olmoe", -1 },
        { "1.0.0", "olmoe", 0 },
    };
    struct world *world;

    (void)state;
    world = MAKE(square, both, PEFT_021, "down_proj", "gate_up_proj");
    run_well(world);
    check_fused(world, square[1].name, 2, 4, 4, factors_of(world, L "mlp.experts", 0), true, 2);
    release(world);
    world = MAKE(square, reversed, PEFT_021, "down_proj", "gate_up_proj");
    run_well(world);
    check_fused(world, square[1].name, 2, 4, 4, factors_of(world, L "mlp.experts", 0), false, 2);
    release(world);

    for (size_t i = 0; i < COUNT(cases); i++) {
        world = make(square, COUNT(square), both, 1, "",
                     (const char *const[]){ "experts.down_proj", NULL });
        world->options.b_layout = EDIT_B_RANK_MAJOR;
        set_version(world, cases[i].version);
        set_model_type(world, cases[i].type);
        if (cases[i].transposed < 0) {
            run_badly(world, ERR_MISMATCH, "nothing in the adapter tells");
        } else {
            run_well(world);
            check_fused(world, square[1].name, 2, 4, 4, factors_of(world, L "mlp.experts", 0),
                        cases[i].transposed, 2);
        }
        release(world);
    }
}

static void test_square_experts_told_by_another_layer(void **state)
{
    static const struct made base[] = {
        { L "mlp.experts.down_proj", { 2, 4, 4 }, 0 },
        { "model.layers.1.mlp.experts.gate_up_proj", { 2, 4, 8 }, 0 },
        { "model.layers.1.mlp.router.weight", { 2, 4 }, 0 },
    };
    static const struct made_pair pairs[] = {
        { L "mlp.experts", 6, 4, 4, 0, true },
        { "model.layers.1.mlp.experts", 6, 4, 8, 0, true },
        { "model.layers.1.mlp.router", 3, 4, 2, 0, true },
    };
    struct world *world = MAKE(base, pairs, PEFT_021, "down_proj", "gate_up_proj", "router.weight");

    (void)state;
    set_model_type(world, "gpt_oss");
    run_well(world);
    check_fused(world, base[0].name, 2, 4, 4, factors_of(world, L "mlp.experts", 0), true, 2);
    release(world);
}

static void test_single_factors_on_square_experts(void **state)
{
    static const struct made_pair down[] = { { L "mlp.experts.1.down_proj", 3, 4, 4, 0, false } };
    /* H 4, I 2: gate over up is square. */
    static const struct made wide[] = { { L "mlp.experts.gate_up_proj", { 2, 4, 4 }, 0 },
                                        { L "mlp.experts.down_proj", { 2, 4, 2 }, 0 } };
    static const struct made_pair up[] = { { L "mlp.experts.1.up_proj", 3, 4, 2, 0, false } };
    struct world *world;
    double *sum;

    (void)state;
    world = MAKE(square, down, "", NULL);
    run_well(world);
    sum = dense(world, square[1].name);
    for (uint64_t i = 0; i < 4; i++) {
        for (uint64_t o = 0; o < 4; o++)
            check_near(sum[(4 + i) * 4 + o],
                       2 * peft(factors_of(world, down[0].module, 0), 1, 0, o, i));
    }
    free(sum);
    release(world);

    world = MAKE(wide, up, "", NULL);
    run_well(world);
    sum = dense(world, wide[0].name);
    for (uint64_t o = 0; o < 4; o++) {
        for (uint64_t i = 0; i < 4; i++)
            check_near(sum[(4 + o) * 4 + i],
                       o < 2 ? 0 : 2 * peft(factors_of(world, up[0].module, 0), 1, 0, o - 2, i));
    }
    free(sum);
    release(world);

    world = make(&square[1], 1, down, 1, "", NULL);
    run_badly(world, ERR_MISMATCH, "fused in square matrices");
    release(world);
}

static void test_unknown_order_of_parameters(void **state)
{
    static const struct made base[] = { { L "moe.first", { 2, 4, 6 }, 0 },
                                        { L "moe.second", { 2, 4, 6 }, 0 },
                                        { L "moe.third", { 2, 4, 7 }, 0 } };
    static const struct made_pair pairs[] = { { L "moe", 6, 4, 6, 0, true },
                                              { L "moe", 6, 4, 6, 1, true } };
    static const struct made_pair told[] = { { L "moe", 6, 4, 7, 0, true },
                                             { L "moe", 6, 4, 6, 1, true } };
    struct world *world;

    (void)state;
    world = MAKE(base, pairs, PEFT_021, "first", "second");
    run_badly(world, ERR_MISMATCH, "any of its parameters 'first', 'second'");
    release(world);
    world = MAKE(base, told, PEFT_021, "first", "third");
    run_well(world);
    check_fused(world, base[2].name, 2, 4, 7, factors_of(world, L "moe", 0), true, 2);
    release(world);
    /* Both are square and only one has factors. */
    world = make(square, COUNT(square),
                 (struct made_pair[]){ { L "mlp.experts", 6, 9, 9, 0, true } }, 1, PEFT_021,
                 (const char *const[]){ "gate_up_proj", "down_proj", NULL });
    run_badly(world, ERR_MISMATCH, "make [9, 9] for each expert");
    release(world);
}

static void test_repeated_layers(void **state)
{
    static const struct made_pair pairs[] = {
        { "model.layers.2.mlp.experts", 6, 4, 5, 0, true },
        { "model.layers.3.mlp.experts.1.up_proj", 3, 5, 4, 0, false },
    };
    uint64_t layers[] = { 7, 0, 0 };
    struct world *world = MAKE(upright, pairs, PEFT_021, "down_proj");

    (void)state;
    world->replicas = (struct adapter_replicas){ layers, 3 };
    run_badly(world, ERR_MISMATCH, "layer");
    assert_int_equal(world->edits.count, 2);
    assert_int_equal(world->edits.list[0].replica, 1);
    check_fused(world, upright[1].name, 2, 5, 4, factors_of(world, pairs[0].module, 0), false, 2);
    release(world);
}

static void test_refusals(void **state)
{
    static const struct made quantised[] = {
        { L "mlp.experts.down_proj", { 2, 5, 4 }, DTYPE_F8_E4M3 }
    };
    static const struct made uneven[] = { { L "mlp.experts.0.gate_proj.weight", { 4, 5 }, 0 },
                                          { L "mlp.experts.1.gate_proj.weight", { 4, 5 }, 0 },
                                          { L "mlp.experts.0.up_proj.weight", { 4, 5 }, 0 } };
    static const struct made crooked[] = { { L "mlp.experts.0.gate_proj.weight", { 4, 5 }, 0 },
                                           { L "mlp.experts.0.up_proj.weight", { 3, 5 }, 0 } };
    static const struct {
        const struct made *base;
        size_t count;
        struct made_pair pair;
        const char *parameter;
        int code;
        const char *part;
    } cases[] = {
        { upright,
          2,
          { L "mlp.experts", 9, 4, 5, 0, true },
          "down_proj",
          ERR_MISMATCH,
          "has an A factor of 9 rows, but parameter 'down_proj' of the base has 2 experts" },
        { qwen,
          COUNT(qwen),
          { L "mlp.experts", 9, 5, 8, 0, true },
          "gate_up_proj",
          ERR_MISMATCH,
          "has 2 experts" },
        { upright,
          2,
          { L "mlp.experts", 6, 4, 6, 0, true },
          "down_proj",
          ERR_MISMATCH,
          "has shape [2, 5, 4], but the factors of module" },
        { qwen,
          COUNT(qwen),
          { L "mlp.experts", 6, 4, 6, 0, true },
          "down_proj",
          ERR_MISMATCH,
          "has shape [5, 4]" },
        { upright,
          2,
          { L "mlp.experts.2.down_proj", 3, 4, 5, 0, false },
          NULL,
          ERR_MISMATCH,
          "is of expert 2, but the base has 2 experts" },
        { qwen,
          COUNT(qwen),
          { L "mlp.experts.2.w1", 3, 5, 4, 0, false },
          NULL,
          ERR_MISMATCH,
          "is of expert 2, but the base has 2 experts" },
        { upright,
          2,
          { L "mlp.experts.0.down_proj", 3, 4, 6, 0, false },
          NULL,
          ERR_MISMATCH,
          "has shape [2, 5, 4]" },
        { upright,
          2,
          { L "mlp.experts.0.up_proj", 3, 5, 3, 0, false },
          NULL,
          ERR_MISMATCH,
          "has shape [2, 8, 5]" },
        { quantised,
          1,
          { L "mlp.experts", 6, 4, 5, 0, true },
          "down_proj",
          ERR_FORMAT,
          "stored as F8_E4M3" },
        { quantised,
          1,
          { L "mlp.experts.0.down_proj", 3, 4, 5, 0, false },
          NULL,
          ERR_FORMAT,
          "stored as F8_E4M3" },
        { uneven,
          3,
          { L "mlp.experts", 6, 5, 8, 0, true },
          "gate_up_proj",
          ERR_MISMATCH,
          "the base lacks a tensor of expert 1" },
        { crooked,
          2,
          { L "mlp.experts", 3, 5, 8, 0, true },
          "gate_up_proj",
          ERR_MISMATCH,
          "has shape [3, 5]" },
        { upright,
          2,
          { L "mlp.router", 3, 5, 8, 0, true },
          "router.weight",
          ERR_MISMATCH,
          "router.weight'" },
        { upright,
          2,
          { L "mlp.router", 3, 5, 8, 0, true },
          "xrouter.weight",
          ERR_MISMATCH,
          "neither target_modules nor" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct world *world = make(cases[i].base, cases[i].count, &cases[i].pair, 1, PEFT_021,
                                   (const char *const[]){ cases[i].parameter, NULL });

        run_badly(world, cases[i].code, cases[i].part);
        release(world);
    }
}

static void test_factors_that_experts_do_not_have(void **state)
{
    static const struct made_pair pairs[] = { { L "mlp.experts.0.down_proj", 3, 4, 5, 0, false } };

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct world *world = MAKE(upright, pairs, "", NULL);
        struct adapter_pair *pair = &world->adapter.pairs[0];

        if (i == 0)
            pair->tensor_magnitude = 0;
        else if (i == 1)
            pair->tensor_b_bias = 0;
        else if (i == 2)
            pair->tensor_base = 0;
        else
            pair->rank = 2;
        run_badly(world, ERR_FORMAT,
                  i == 0   ? "a DoRA magnitude"
                  : i == 1 ? "a bias of factor B"
                  : i == 2 ? "a copy of the base's tensor"
                           : "do not have the shapes");
        release(world);
    }
}

static void test_unused_parameters(void **state)
{
    static const struct made_pair pairs[] = { { "model.layers.9.mlp.experts", 6, 4, 5, 0, true } };
    struct world *world = MAKE(upright, pairs, PEFT_021, "down_proj");

    (void)state;
    run_badly(world, ERR_MISMATCH, "model.layers.9.mlp.experts.down_proj");
    world->options.allow_unused = true;
    run_well(world);
    assert_int_equal(world->edits.count, 0);
    assert_int_equal(world->adapter.unused_count, 2);
    assert_string_equal(world->adapter.unused[1],
                        "base_model.model.model.layers.9.mlp.experts.lora_B.weight");
    release(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fused_factors_on_single_experts),
        cmocka_unit_test(test_old_factors_on_single_experts),
        cmocka_unit_test(test_fused_factors_on_fused_experts),
        cmocka_unit_test(test_one_parameter),
        cmocka_unit_test(test_matrices),
        cmocka_unit_test(test_single_factors_on_fused_experts),
        cmocka_unit_test(test_lists_of_linear_layers),
        cmocka_unit_test(test_other_spellings),
        cmocka_unit_test(test_what_is_no_expert_of_ours),
        cmocka_unit_test(test_order_of_columns),
        cmocka_unit_test(test_order_of_columns_that_does_not_matter),
        cmocka_unit_test(test_square_experts),
        cmocka_unit_test(test_square_experts_told_by_another_layer),
        cmocka_unit_test(test_single_factors_on_square_experts),
        cmocka_unit_test(test_unknown_order_of_parameters),
        cmocka_unit_test(test_repeated_layers),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_factors_that_experts_do_not_have),
        cmocka_unit_test(test_unused_parameters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

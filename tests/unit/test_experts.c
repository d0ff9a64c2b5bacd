#include "experts_help.h"

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
} refusals[] = {
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

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refusals); i++) {
        struct world *world = make(refusals[i].base, refusals[i].count, &refusals[i].pair, 1,
                                   PEFT_021, (const char *const[]){ refusals[i].parameter, NULL });

        run_badly(world, refusals[i].code, refusals[i].part);
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

static void check_inside(const struct world *world, const struct factor_view *view, uint32_t rank,
                         uint64_t size)
{
    const struct st_tensor *tensor = &world->adapter.header.tensors[view->tensor];

    assert_true(rank && view->count && view->step);
    assert_true(view->first + (view->count - 1) * view->step < size);
    assert_true(view->offset + (view->count - 1) * view->index_stride +
                    (rank - 1) * view->rank_stride <
                tensor->element_count);
}

#define DRAW(n) (((seed = seed * 1664525u + 1013904223u) >> 16) % (n))

/* Whatever fits or not: no edit reads or writes outside its tensors. */
static void test_random_shapes(void **state)
{
    static const char *const names[] = {
        L "mlp.experts.gate_up_proj",
        L "mlp.experts.down_proj",
        L "mlp.experts.up_proj",
        L "mlp.experts.0.gate_proj.weight",
        L "mlp.experts.1.gate_proj.weight",
        L "mlp.experts.0.up_proj.weight",
        L "mlp.experts.1.up_proj.weight",
        L "mlp.experts.0.w2.weight",
        L "mlp.experts.1.down_proj.weight",
        L "mlp.input_linear.weight",
        L "block_sparse_moe.experts.0.w1.weight",
    };
    static const char *const modules[] = {
        L "mlp.experts",           L "mlp.experts.0.gate_proj", L "mlp.experts.1.w3",
        L "mlp.experts.0.w2",      L "mlp.experts.1.down_proj", L "mlp.experts.gate_up_projs.1",
        L "mlp.experts.0.up_proj",
    };
    uint32_t seed = 20;
    size_t edits = 0;

    (void)state;
    for (int round = 0; round < 4000; round++) {
        struct made base[COUNT(names)] = { 0 };
        struct made_pair pairs[2];
        struct world *world;
        size_t count = 0;
        bool handled;

        for (size_t i = 0; i < COUNT(names); i++) {
            if (DRAW(2))
                continue;
            base[count].name = names[i];
            for (uint32_t d = 0, last = 2 + DRAW(2); d < last; d++)
                base[count].shape[d] = 1u << DRAW(3);
            count++;
        }
        if (!count)
            continue;
        for (size_t i = 0; i < 2; i++) {
            size_t module = DRAW(COUNT(modules));

            pairs[i] = (struct made_pair){ modules[module], 1u << DRAW(3), 1u << DRAW(3),
                                           1u << DRAW(3),   (uint32_t)i,   module == 0 };
        }
        world = make(base, count, pairs, 2, PEFT_021 ",\"rank_pattern\":{\".*\":1}",
                     (const char *const[]){ "up_proj", "gate_up_proj", "down_proj", NULL });
        set_model_type(world, DRAW(2) ? "gpt_oss" : "olmoe");
        run(world, &handled);
        for (size_t i = 0; i < world->edits.count; i++) {
            const struct adapter_edit *edit = &world->edits.list[i];
            const struct st_tensor *tensor = model_tensor(&world->model, edit->tensor);

            assert_true(edit->rows * edit->cols == tensor->element_count);
            assert_true(edit->row_count && edit->row_first + edit->row_count <= edit->rows);
            check_inside(world, &edit->left, edit->rank, edit->row_count);
            check_inside(world, &edit->right, edit->rank, edit->cols);
            edits++;
        }
        release(world);
    }
    assert_true(edits > 200);
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
        cmocka_unit_test(test_repeated_layers),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_factors_that_experts_do_not_have),
        cmocka_unit_test(test_unused_parameters),
        cmocka_unit_test(test_random_shapes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

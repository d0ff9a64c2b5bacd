#include "experts_help.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_of_columns),
        cmocka_unit_test(test_order_of_columns_that_does_not_matter),
        cmocka_unit_test(test_square_experts),
        cmocka_unit_test(test_square_experts_told_by_another_layer),
        cmocka_unit_test(test_single_factors_on_square_experts),
        cmocka_unit_test(test_unknown_order_of_parameters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

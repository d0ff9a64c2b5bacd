#include "config_case.h"

static const struct refused_config refused[] = {
    { LORA(",\"use_dora\":1"), "'use_dora' is 1: it must be true or false" },
    { LORA(",\"lora_bias\":\"all\""), "'lora_bias' is \"all\": it must be true or false" },
    { LORA(",\"fan_in_fan_out\":2"), "'fan_in_fan_out' is 2: it must be true or false" },
    { LORA(",\"ensure_weight_tying\":[]"), "'ensure_weight_tying' is []: it must be true" },
    { LORA(",\"bias\":\"boft_only\""), "'bias' is \"boft_only\": it must be \"none\", \"all\"" },
    { LORA(",\"bias\":true"), "'bias' is true: it must be \"none\", \"all\"" },

    { LORA(",\"modules_to_save\":\"lm_head\""), "it must be a list of strings" },
    { LORA(",\"modules_to_save\":[7]"), "it must be a list of strings" },
    { LORA(",\"modules_to_save\":[\"\"]"), "it must be a list of strings, none of them empty" },
    { LORA(",\"trainable_token_indices\":7"), "it must be a list, or an object of lists" },
    { LORA(",\"trainable_token_indices\":[-1]"), "a token is a whole number from 0 to 4294967295" },
    { LORA(",\"trainable_token_indices\":[4294967296]"), "a token is a whole number" },
    { LORA(",\"trainable_token_indices\":[0.5]"), "a token is a whole number" },
    { LORA(",\"trainable_token_indices\":[true]"), "a token is a whole number" },
    { LORA(",\"trainable_token_indices\":[3,5,3]"),
      "'trainable_token_indices': token 3 is listed twice" },
    { LORA(",\"trainable_token_indices\":{\"e\":3}"),
      "'trainable_token_indices': 'e' is 3: it must be a list of whole numbers" },
    { LORA(",\"trainable_token_indices\":{\"e\":[1],\"f\":[2,2]}"),
      "'trainable_token_indices': 'f': token 2 is listed twice" },
    { LORA(",\"trainable_token_indices\":{\"\":[1]}"), "a name in it is empty" },
    { LORA(",\"trainable_token_indices\":{\"e\":[1]},\"modules_to_save\":[\"d\",\"e\"]"),
      "PEFT does not allow a module both here and in 'modules_to_save'" },
    { LORA(",\"trainable_token_indices\":{\"score\":[1]},\"task_type\":\"SEQ_CLS\""),
      "PEFT does not allow a module both here and in 'modules_to_save'" },

    { LORA(",\"target_parameters\":\"experts.w\""), "it must be a list of strings" },
    { LORA(",\"target_parameters\":[[]]"), "it must be a list of strings" },
    { LORA(",\"target_parameters\":[\"\"]"), "none of them empty" },
    { LORA(",\"layer_replication\":{}"), "it must be a list of ranges [first, end]" },
    { LORA(",\"layer_replication\":[0,2]"), "it must be a list of ranges" },
    { LORA(",\"layer_replication\":[[]]"), "it must be a list of ranges" },
    { LORA(",\"layer_replication\":[[0]]"), "it must be a list of ranges" },
    { LORA(",\"layer_replication\":[[0,1,2]]"), "it must be a list of ranges" },
    { LORA(",\"layer_replication\":[[0,2],[1,1]]"), "0 <= first < end" },
    { LORA(",\"layer_replication\":[[2,1]]"), "0 <= first < end" },
    { LORA(",\"layer_replication\":[[-1,1]]"), "0 <= first < end" },
    { LORA(",\"layer_replication\":[[0,1e18]]"), "end <= 100000" },
    { LORA(",\"layer_replication\":[[0,1.5]]"), "it must be a list of ranges" },
    { LORA(",\"layer_replication\":[[0,100000],[0,1]]"), "more than 100000 layers" },
    { LORA(",\"use_bdlora\":true"), "it must be an object with 'nblocks'" },
    { LORA(",\"use_bdlora\":{\"nblocks\":0}"), "'use_bdlora': 'nblocks' is 0: a number of blocks" },
    { LORA(",\"use_bdlora\":{\"nblocks\":65537}"), "from 1 to 65536" },
    { LORA(",\"use_bdlora\":{\"nblocks\":null}"), "'nblocks' is null" },
    { LORA(",\"use_bdlora\":{\"target_modules_bd_a\":\"o_proj\"}"),
      "'use_bdlora': 'target_modules_bd_a' is \"o_proj\": it must be a list of strings" },
    { LORA(",\"use_bdlora\":{\"target_modules_bd_b\":[\"\"]}"), "none of them empty" },
    { LORA(",\"use_bdlora\":{\"target_modules_bd_a\":[\"q\",\"o\"],\"target_modules_bd_b\":[\"o\"]"
           "}"),
      "'use_bdlora': 'o' stands both in 'target_modules_bd_a' and in 'target_modules_bd_b'" },

    { LORA(",\"use_dora\":true,\"lora_bias\":true"),
      "PEFT does not allow 'use_dora' and 'lora_bias' together" },
    { LORA(",\"use_dora\":true,\"use_bdlora\":{\"nblocks\":2}"), "'use_dora' and 'use_bdlora'" },
    { LORA(",\"use_dora\":true,\"megatron_config\":{\"a\":1}"),
      "'use_dora' and 'megatron_config'" },
    { LORA(",\"use_dora\":true,\"target_parameters\":[\"e.w\"]"),
      "'use_dora' and 'target_parameters'" },
    { LORA(",\"lora_bias\":true,\"target_parameters\":[\"e.w\"]"),
      "'lora_bias' and 'target_parameters'" },
    { LORA(",\"use_bdlora\":{},\"target_parameters\":[\"e.w\"]"),
      "'use_bdlora' and 'target_parameters'" },
    { LORA(",\"fan_in_fan_out\":true,\"target_parameters\":[\"e.w\"]"),
      "'fan_in_fan_out' and 'target_parameters'" },

    { TOKENS(""), "'token_indices' lists no token" },
    { TOKENS(",\"token_indices\":null"), "'token_indices' lists no token" },
    { TOKENS(",\"token_indices\":[]"), "'token_indices' lists no token" },
    { TOKENS(",\"token_indices\":{\"e\":[1]}"), "it must be a list of whole numbers" },
    { TOKENS(",\"token_indices\":[\"1\"]"), "a token is a whole number" },
    { TOKENS(",\"token_indices\":[7,7]"), "'token_indices': token 7 is listed twice" },
    { TOKENS(",\"token_indices\":[7],\"target_modules\":7"), "a string or a list of strings" },
};

static void test_kinds__refuses(void **state)
{
    (void)state;
    check_refused(refused, COUNT(refused));
}

static void test_kinds__fields(void **state)
{
    struct adapter_config config;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(parse(&config, LORA(""), NULL, &err), 0);
    assert_int_equal(config.type, ADAPTER_LORA);
    assert_int_equal(config.bias, ADAPTER_BIAS_NONE);
    assert_false(config.dora || config.lora_bias || config.fan_in_fan_out || config.tie);
    assert_false(config.bdlora || config.modules_to_save.present);
    assert_int_equal(config.token_rows_count + config.target_parameters_count, 0);
    assert_int_equal(config.layer_replication_count, 0);
    adapter_config_release(&config);

    assert_int_equal(parse(&config,
                           LORA(",\"use_dora\":true,\"bias\":\"lora_only\",\"fan_in_fan_out\":true,"
                                "\"layer_replication\":[[0,4],[2,5]],\"ensure_weight_tying\":true"),
                           NULL, &err),
                     0);
    assert_true(config.dora && config.fan_in_fan_out && config.tie);
    assert_false(config.lora_bias);
    assert_int_equal(config.bias, ADAPTER_BIAS_LORA_ONLY);
    assert_int_equal(config.layer_replication_count, 2);
    assert_int_equal(config.layer_replication[0][0], 0);
    assert_int_equal(config.layer_replication[0][1], 4);
    assert_int_equal(config.layer_replication[1][0], 2);
    assert_int_equal(config.layer_replication[1][1], 5);
    adapter_config_release(&config);

    assert_int_equal(parse(&config,
                           LORA(",\"lora_bias\":true,\"bias\":\"all\",\"use_bdlora\":{"
                                "\"target_modules_bd_a\":[\"o_proj\"],\"nblocks\":4,"
                                "\"match_strict\":true,\"target_modules_bd_b\":[\"attn.q\"]}"),
                           NULL, &err),
                     0);
    assert_true(config.lora_bias && config.bdlora);
    assert_int_equal(config.bias, ADAPTER_BIAS_ALL);
    assert_int_equal(config.bdlora_blocks, 4);
    adapter_config_release(&config);

    assert_int_equal(parse(&config, LORA(",\"target_parameters\":[\"b.w\",\"a.w\"]"), NULL, &err),
                     0);
    assert_int_equal(config.target_parameters_count, 2);
    assert_string_equal(config.target_parameters[0], "b.w");
    assert_string_equal(config.target_parameters[1], "a.w");
    adapter_config_release(&config);
}

/* PEFT asks whether the path contains the name. */
static void test_kinds__blocks(void **state)
{
    static const struct {
        const char *name;
        uint32_t a;
        uint32_t b;
    } modules[] = {
        { "model.layers.0.self_attn.q_proj", 1, 4 },
        { "model.layers.0.self_attn.o_proj", 4, 1 },
        { "model.layers.0.mlp.o_projector.x", 4, 1 },
        { "model.layers.0.self_attn.v_proj", 1, 1 },
    };
    struct adapter_config config;
    struct error err = { 0 };
    uint32_t a;
    uint32_t b;

    (void)state;
    assert_int_equal(parse(&config,
                           LORA(",\"use_bdlora\":{\"target_modules_bd_a\":[\"o_proj\"],"
                                "\"nblocks\":4,\"target_modules_bd_b\":[\"v_projx\",\"attn.q\"]}"),
                           NULL, &err),
                     0);
    for (size_t i = 0; i < COUNT(modules); i++) {
        assert_int_equal(adapter_config_blocks(&config, modules[i].name, &a, &b, &err), 0);
        if (a != modules[i].a || b != modules[i].b)
            fail_msg("%s: %u, %u blocks", modules[i].name, a, b);
    }
    assert_int_equal(adapter_config_blocks(&config, "attn.q.o_proj", &a, &b, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "names module 'attn.q.o_proj' both in"));
    adapter_config_release(&config);
}

static void test_kinds__saved(void **state)
{
    static const struct {
        const char *fields;
        const char *name;
        bool saved;
    } cases[] = {
        { ",\"modules_to_save\":[\"head\"]", "lm_head", true },
        { ",\"modules_to_save\":[\"head\"]", "model.head", true },
        { ",\"modules_to_save\":[\"head\"]", "lm_head.dense", true },
        { ",\"modules_to_save\":[\"head\"]", "model.lm_head.dense.inner", true },
        { ",\"modules_to_save\":[\"head\"]", "header", false },
        { ",\"modules_to_save\":[\"head\"]", "ead", false },
        { ",\"modules_to_save\":[\"a\",\"b.c\"]", "x.b.c", true },
        { ",\"modules_to_save\":[\"a\",\"b.c\"]", "b.x.c", false },
        { "", "score", false },
        { ",\"task_type\":\"CAUSAL_LM\"", "score", false },
        { ",\"task_type\":\"SEQ_CLS\"", "score", true },
        { ",\"task_type\":\"SEQ_CLS\"", "classifier.out_proj", true },
        { ",\"task_type\":\"TOKEN_CLS\",\"modules_to_save\":[\"score\"]", "classifier", true },
        { ",\"task_type\":\"QUESTION_ANS\"", "qa_outputs", true },
        { ",\"task_type\":\"QUESTION_ANS\"", "score", false },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct adapter_config config;
        struct error err = { 0 };
        char json[256];

        snprintf(json, sizeof(json), LORA("%s"), cases[i].fields);
        if (parse(&config, json, NULL, &err) ||
            adapter_config_saves(&config, cases[i].name) != cases[i].saved)
            fail_msg("%s on '%s': %s", json, cases[i].name, err.text);
        adapter_config_release(&config);
    }
}

static void check_tokens(const struct adapter_config *config, const char *name, size_t count,
                         uint64_t first)
{
    const struct token_rows *tokens = adapter_config_tokens(config, name);

    if (!count) {
        assert_null(tokens);
        return;
    }
    assert_non_null(tokens);
    assert_int_equal(tokens->count, count);
    assert_int_equal(tokens->rows[0], first);
}

static void test_kinds__tokens(void **state)
{
    struct adapter_config config;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(
        parse(&config, LORA(",\"trainable_token_indices\":[4294967295,0,7]"), NULL, &err), 0);
    assert_int_equal(config.token_rows_count, 1);
    assert_null(config.token_rows[0].module);
    check_tokens(&config, "model.embed_tokens", 3, UINT32_MAX);
    assert_int_equal(config.token_rows[0].rows[2], 7);
    adapter_config_release(&config);

    assert_int_equal(parse(&config,
                           LORA(",\"trainable_token_indices\":{\"embed_tokens\":[5,6],"
                                "\"none\":[],\"lm_head\":[9]}"),
                           NULL, &err),
                     0);
    assert_int_equal(config.token_rows_count, 2);
    assert_string_equal(config.token_rows[1].module, "lm_head");
    check_tokens(&config, "model.embed_tokens", 2, 5);
    check_tokens(&config, "model.xembed_tokens", 2, 5); /* no border at a dot */
    check_tokens(&config, "lm_head", 1, 9);
    check_tokens(&config, "other", 0, 0);
    check_tokens(&config, "none", 0, 0);
    adapter_config_release(&config);

    assert_int_equal(parse(&config, LORA(",\"trainable_token_indices\":[]"), NULL, &err), 0);
    assert_int_equal(config.token_rows_count, 0);
    adapter_config_release(&config);

    assert_int_equal(
        parse(&config, TOKENS(",\"token_indices\":[2,1],\"target_modules\":[\"e\"]"), NULL, &err),
        0);
    assert_int_equal(config.type, ADAPTER_TRAINABLE_TOKENS);
    check_tokens(&config, "model.e", 2, 2);
    adapter_config_release(&config);
}

/* More names than would be looked through for every tensor. */
static void test_kinds__too_many_names(void **state)
{
    static const struct {
        const char *begin;
        const char *end;
    } fields[] = {
        { "{\"peft_type\":\"LORA\",\"modules_to_save\":[", "\"n\"]}" },
        { "{\"peft_type\":\"LORA\",\"use_bdlora\":{\"target_modules_bd_a\":[", "\"n\"]}}" },
        { "{\"peft_type\":\"LORA\",\"trainable_token_indices\":{", "\"n\":[1]}}" },
    };
    size_t room = 1 << 17;
    char *json = malloc(room);

    (void)state;
    assert_non_null(json);
    for (size_t i = 0; i < COUNT(fields); i++) {
        for (unsigned more = 0; more < 2; more++) {
            struct adapter_config config;
            struct error err = { 0 };
            size_t bytes = (size_t)snprintf(json, room, "%s", fields[i].begin);

            for (unsigned n = 0; n < 4095 + more; n++) {
                bytes += (size_t)snprintf(json + bytes, room - bytes,
                                          i == 2 ? "\"n%u\":[1]," : "\"n%u\",", n);
            }
            snprintf(json + bytes, room - bytes, "%s", fields[i].end);
            if (parse(&config, json, NULL, &err) != (more ? ERR_FORMAT : 0))
                fail_msg("field %zu, %u more: %s", i, more, err.text);
            if (more)
                assert_non_null(strstr(err.text, "more than 4096 names"));
            else
                adapter_config_release(&config);
        }
    }
    free(json);
}

static void test_kinds__tokens_target_no_factors(void **state)
{
    struct adapter_config config;
    struct error err = { 0 };
    bool targeted = true;

    (void)state;
    assert_int_equal(
        parse(&config, TOKENS(",\"token_indices\":[1],\"target_modules\":[\"e\"]"), NULL, &err), 0);
    assert_int_equal(adapter_config_targets(&config, "m.e", &targeted, &err), 0);
    assert_false(targeted);
    adapter_config_release(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds__refuses),
        cmocka_unit_test(test_kinds__fields),
        cmocka_unit_test(test_kinds__blocks),
        cmocka_unit_test(test_kinds__saved),
        cmocka_unit_test(test_kinds__tokens),
        cmocka_unit_test(test_kinds__tokens_target_no_factors),
        cmocka_unit_test(test_kinds__too_many_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

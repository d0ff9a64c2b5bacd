#include "config_case.h"

#include <math.h>

static const struct refused_config refused[] = {
    { "", "expected a value" },
    { "[]", "a configuration is a JSON object" },
    { "{}", "there is no 'peft_type'" },
    { "{\"peft_type\":null}", "'peft_type' is null: it must be a string" },
    { "{\"peft_type\":7}", "'peft_type' is 7: it must be a string" },
    { "{\"peft_type\":\"IA3\"}", "'peft_type' is \"IA3\": its weights follow another formula" },
    { "{\"peft_type\":\"VBLORA\"}", "merge_and_unload(), then save_pretrained()" },
    { "{\"peft_type\":\"BONE\"}", "with the release of PEFT that made it" },
    { "{\"peft_type\":\"P_TUNING\"}",
      "'peft_type' is \"P_TUNING\": it trains inputs of the model" },
    { "{\"peft_type\":\"XLORA\"}", "it chooses among its experts anew for every input" },
    { "{\"peft_type\":\"LILY\"}", "it chooses among its experts anew for every input" },
    { "{\"peft_type\":\"SHADOW\"}", "a second network beside the base" },
    { "{\"peft_type\":\"lora\"}", "PEFT 0.21 has no such kind of adapter" },
    { "{\"peft_type\":\"FUTURE\"}", "PEFT 0.21 has no such kind of adapter" },
    { LORA(",\"r\":8,\"r\":16"), "r" },
    { LORA(",\"r\":0"), "'r' is 0: a rank is a whole number from 1 to 65536" },
    { LORA(",\"r\":-8"), "'r' is -8" },
    { LORA(",\"r\":8.5"), "'r' is 8.5" },
    { LORA(",\"r\":65537"), "'r' is 65537" },
    { LORA(",\"r\":1e300"), "a rank is a whole number" },
    { LORA(",\"r\":NaN"), "'r' is not finite" },
    { LORA(",\"r\":null"), "'r' is null" },
    { LORA(",\"r\":true"), "'r' is true" },
    { LORA(",\"r\":\"8\""), "'r' is \"8\"" },
    { LORA(",\"lora_alpha\":NaN"), "'lora_alpha' is not finite: an alpha is a finite number" },
    { LORA(",\"lora_alpha\":-Infinity"), "'lora_alpha' is not finite" },
    { LORA(",\"lora_alpha\":1e999"), "'lora_alpha' is not finite" },
    { LORA(",\"lora_alpha\":\"16\""), "'lora_alpha' is \"16\"" },
    { LORA(",\"lora_alpha\":true"), "'lora_alpha' is true" },
    { LORA(",\"lora_alpha\":null"), "'lora_alpha' is null" },
    { LORA(",\"use_rslora\":1"), "'use_rslora' is 1: it must be true or false" },
    { LORA(",\"rank_pattern\":[]"), "'rank_pattern' is []: it must be an object" },
    { LORA(",\"rank_pattern\":{\"q\":0}"), "'rank_pattern': 'q' is 0: a rank" },
    { LORA(",\"rank_pattern\":{\"q\":1.5}"), "'rank_pattern': 'q' is 1.5" },
    { LORA(",\"rank_pattern\":{\"(?i)q\":4}"), "'rank_pattern': pattern '(?i)q', character 1" },
    { LORA(",\"alpha_pattern\":{\"q\":\"1\"}"), "'alpha_pattern': 'q' is \"1\"" },
    { LORA(",\"alpha_pattern\":{\"q\":NaN}"), "'alpha_pattern': 'q' is not finite" },
    { LORA(",\"alpha_pattern\":{\"a{\":1}"), "'alpha_pattern': pattern 'a{', character 2" },
    { LORA(",\"target_modules\":7"), "it must be a string or a list of strings" },
    { LORA(",\"target_modules\":[\"q\",7]"), "it must be a string or a list of strings" },
    { LORA(",\"target_modules\":{}"), "it must be a string or a list of strings" },
    { LORA(",\"target_modules\":\"(?<=a)b\""), "'target_modules': pattern '(?<=a)b'" },
    { LORA(",\"exclude_modules\":\"a(\""), "'exclude_modules': pattern 'a('" },
    { LORA(",\"layers_to_transform\":\"0\""), "it must be a whole number or a list of them" },
    { LORA(",\"layers_to_transform\":[0,1.5]"), "it must be a whole number or a list of them" },
    { LORA(",\"layers_pattern\":\"h\""), "means nothing without 'layers_to_transform'" },
    { LORA(",\"layers_to_transform\":[0],\"layers_pattern\":[\"a|b\"]"), "only names of letters" },
    { LORA(",\"layers_to_transform\":[0],\"layers_pattern\":[\"\"]"), "a name in it is empty" },
    { LORA(",\"layers_to_transform\":[0],\"target_modules\":\"q\""), "PEFT does not allow it" },
    { LORA(",\"base_model_name_or_path\":7"), "it must be a string or null" },
    { LORA(",\"revision\":[]"), "it must be a string or null" },

    { LORA(",\"use_qalora\":true"), "QA-LoRA" },
    { LORA(",\"kasa_config\":{\"beta\":1}"), "KaSA" },
    { LORA(",\"kasa_config\":{}"), "KaSA" },
    { LORA(",\"alora_invocation_tokens\":[1]"), "aLoRA" },
    { LORA(",\"arrow_config\":{\"top_k\":3}"), "Arrow" },

    { LORA(",\"init_lora_weights\":\"pissa\""), "path_initial_model_for_weight_conversion" },
    { LORA(",\"init_lora_weights\":\"pissa_niter_16\""), "changing the base" },
    { LORA(",\"init_lora_weights\":\"olora\""), "changing the base" },
    { LORA(",\"init_lora_weights\":\"OLoRA\""), "changing the base" },
    { LORA(",\"init_lora_weights\":\"corda\""), "changing the base" },
    { LORA(",\"init_lora_weights\":\"lora_ga\""), "changing the base" },
    { LORA(",\"init_lora_weights\":\"loftq\""), "LoftQ quantised" },
    { LORA(",\"init_lora_weights\":\"pissa_\""), "is not known" },
    { LORA(",\"init_lora_weights\":\"future\""), "is not known" },
    { LORA(",\"init_lora_weights\":[]"), "it must be true, false or a string" },
};

static void test_config__refuses(void **state)
{
    (void)state;
    check_refused(refused, COUNT(refused));
}

/* All fields as PEFT 0.21 writes them for a plain adapter. */
static const char plain[] =
    "{\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,"
    "\"auto_mapping\":null,\"base_model_name_or_path\":\"org/base\",\"bias\":\"none\","
    "\"corda_config\":null,\"ensure_weight_tying\":false,\"eva_config\":null,"
    "\"exclude_modules\":null,\"fan_in_fan_out\":false,\"inference_mode\":true,"
    "\"init_lora_weights\":true,\"kasa_config\":null,\"layer_replication\":null,"
    "\"layers_pattern\":null,\"layers_to_transform\":null,\"loftq_config\":{},\"lora_alpha\":16,"
    "\"lora_bias\":false,\"lora_dropout\":0.05,\"lora_ga_config\":null,\"megatron_config\":null,"
    "\"megatron_core\":\"megatron.core\",\"modules_to_save\":null,\"monteclora_config\":null,"
    "\"peft_type\":\"LORA\",\"peft_version\":\"0.21.2\",\"qalora_group_size\":16,\"r\":8,"
    "\"rank_pattern\":{},\"revision\":null,\"target_modules\":[\"v_proj\",\"q_proj\"],"
    "\"target_parameters\":null,\"task_type\":\"CAUSAL_LM\",\"trainable_token_indices\":null,"
    "\"use_bdlora\":null,\"use_dora\":false,\"use_qalora\":false,\"use_rslora\":false,"
    "\"velora_config\":null}";

static void count_sentence(void *context, enum log_level level, const char *sentence)
{
    (void)level;
    (void)sentence;
    ++*(int *)context;
}

static void test_config__plain(void **state)
{
    struct adapter_config config;
    struct error err = { 0 };
    int said = 0;
    struct log log = { count_sentence, &said };

    (void)state;
    assert_int_equal(parse(&config, plain, &log, &err), 0);
    assert_int_equal(said, 0);
    assert_string_equal(config.base_model, "org/base");
    assert_null(config.revision);
    assert_string_equal(config.peft_version, "0.21.2");
    assert_int_equal(config.rank, 8);
    assert_true(config.alpha == 16);
    assert_false(config.rslora);
    assert_int_equal(config.target_modules.name_count, 2);
    assert_false(config.exclude_modules.present);
    adapter_config_release(&config);

    assert_int_equal(parse(&config, LORA(",\"some_day\":1"), &log, &err), 0);
    assert_int_equal(said, 1);
    assert_int_equal(config.rank, 8);
    assert_true(config.alpha == 8);
    adapter_config_release(&config);
}

static const char *const admitted[] = {
    LORA(",\"init_lora_weights\":\"gaussian\""),
    LORA(",\"init_lora_weights\":\"eva\",\"eva_config\":{\"rho\":2.0}"),
    LORA(",\"init_lora_weights\":false"),
    LORA(",\"modules_to_save\":[],\"target_parameters\":[],\"layer_replication\":[]"),
    LORA(",\"layers_to_transform\":[],\"layers_pattern\":[]"),
    LORA(",\"layers_to_transform\":null,\"layers_pattern\":\"\""),
    LORA(",\"target_modules\":null"),
    LORA(",\"target_modules\":[]"),
    LORA(",\"lora_alpha\":0"),
    LORA(",\"lora_alpha\":-2.5"),
    LORA(",\"r\":65536"),
    LORA(",\"lora_dropout\":NaN"),
    LORA(",\"megatron_config\":{\"a\":[1,2]}"),
    LORA(",\"rank_pattern\":null,\"alpha_pattern\":null,\"use_rslora\":null"),
    LORA(",\"use_dora\":null,\"lora_bias\":null,\"bias\":null,\"modules_to_save\":null"),
    LORA(",\"trainable_token_indices\":null,\"target_parameters\":null,\"layer_replication\":null"),
    LORA(",\"use_bdlora\":false,\"use_qalora\":false,\"alora_invocation_tokens\":[]"),
    LORA(",\"use_dora\":true,\"bias\":\"all\",\"modules_to_save\":[\"lm_head\"]"),
    LORA(",\"use_dora\":true,\"megatron_config\":{},\"target_parameters\":[]"),
    LORA(",\"velora_config\":{\"num_groups\":4},\"monteclora_config\":{\"num_samples\":8}"),
    LORA(",\"layer_replication\":[[99999,100000]]"),
    LORA(",\"task_type\":7"),
    TOKENS(",\"token_indices\":[1],\"r\":0,\"use_dora\":1"),
};

static void test_config__admits(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(admitted); i++) {
        struct adapter_config config;
        struct error err = { 0 };

        if (parse(&config, admitted[i], NULL, &err))
            fail_msg("%s: %s", admitted[i], err.text);
        adapter_config_release(&config);
    }
}

/* A field of one type means nothing to the other. */
static void test_config__fields_of_the_other_type(void **state)
{
    static const struct {
        const char *json;
        int said;
    } texts[] = {
        { TOKENS(",\"token_indices\":[1],\"init_weights\":true,\"target_modules\":\"m.e\""), 0 },
        { TOKENS(",\"token_indices\":[1],\"r\":4,\"kasa_config\":{}"), 2 },
        { LORA(",\"token_indices\":[-1],\"init_weights\":7"), 2 },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct adapter_config config;
        struct error err = { 0 };
        int said = 0;
        struct log log = { count_sentence, &said };

        if (parse(&config, texts[i].json, &log, &err) || said != texts[i].said)
            fail_msg("%s: %d sentences, %s", texts[i].json, said, err.text);
        adapter_config_release(&config);
    }
}

static void check_module(const struct adapter_config *config, const char *name, uint32_t rank,
                         double scale)
{
    struct error err = { 0 };
    uint32_t r;
    double s;

    assert_int_equal(adapter_config_module(config, name, &r, &s, &err), 0);
    if (r != rank || s != scale)
        fail_msg("%s: r %u, scale %.17g", name, r, s);
}

static void test_config__patterns(void **state)
{
    struct adapter_config config;
    struct error err = { 0 };
    uint32_t rank;
    double scale;

    (void)state;
    assert_int_equal(parse(&config,
                           LORA(",\"r\":8,\"lora_alpha\":16,"
                                "\"rank_pattern\":{\"layers.0.q\":4,\"q|k\":2,\"^model.v\":32},"
                                "\"alpha_pattern\":{\"q\":10,\"layers.0.q\":20,\"o\":1e40}"),
                           NULL, &err),
                     0);
    check_module(&config, "model.layers.0.q", 4, 2.5); /* the first key that matches wins */
    check_module(&config, "model.layers.1.q", 2, 5);
    check_module(&config, "model.layers.1.k", 2, 8);
    check_module(&config, "model.layers.1.kk", 8, 2);
    check_module(&config, "model.v", 32, 0.5);
    check_module(&config, "x.model.v", 8, 2);
    assert_int_equal(adapter_config_module(&config, "a.o", &rank, &scale, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "beyond what fp32 can hold"));
    adapter_config_release(&config);

    assert_int_equal(
        parse(&config, LORA(",\"r\":7,\"lora_alpha\":3.5,\"use_rslora\":true"), NULL, &err), 0);
    check_module(&config, "a", 7, 3.5 / sqrt(7));
    adapter_config_release(&config);
}

/* A key that does not match itself as an expression still counts for the name that it is. */
static void test_config__pattern_that_is_the_name(void **state)
{
    struct adapter_config config;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(parse(&config, LORA(",\"rank_pattern\":{\"a+b\":4}"), NULL, &err), 0);
    check_module(&config, "a+b", 4, 2);
    check_module(&config, "x.aab", 4, 2);
    check_module(&config, "x.a+b", 8, 1);
    adapter_config_release(&config);
}

static const struct {
    const char *fields;
    const char *name;
    bool targeted;
} targets[] = {
    { "\"target_modules\":[\"q_proj\",\"k_proj\"]", "model.layers.0.q_proj", true },
    { "\"target_modules\":[\"q_proj\",\"k_proj\"]", "q_proj", true },
    { "\"target_modules\":[\"q_proj\",\"k_proj\"]", "model.xq_proj", false },
    { "\"target_modules\":[\"q_proj\",\"k_proj\"]", "q_proj.x", false },
    { "\"target_modules\":[\"attn.q\"]", "model.attn.q", true },
    { "\"target_modules\":[\"attn.q\"]", "model.xattn.q", false },
    { "\"target_modules\":[]", "q", false },
    { "\"target_modules\":null", "q", true },
    { "\"target_modules\":null,\"target_parameters\":[\"e.w\"]", "q", false },
    { "\"target_modules\":[\"q\"],\"target_parameters\":[\"e.w\"]", "q", true },
    { "\"target_modules\":\"all-linear\",\"modules_to_save\":[\"head\"]", "m.head", false },
    { "\"target_modules\":\"all-linear\",\"modules_to_save\":[\"head\"]", "head.x", false },
    { "\"target_modules\":\"all-linear\",\"modules_to_save\":[\"head\"]", "m.head.x", false },
    { "\"target_modules\":\"all-linear\",\"modules_to_save\":[\"head\"]", "lm_head", true },
    { "\"target_modules\":\"all-linear\",\"modules_to_save\":[\"m.head\"]", "a.m.head", false },
    { "\"target_modules\":\"all-linear\",\"modules_to_save\":[\"m.head\"]", "a.m_head.x", false },
    { "\"target_modules\":\"all-linear\",\"modules_to_save\":[\"m.head\"]", "a.m.hea", true },
    { "\"target_modules\":[\"score\"],\"task_type\":\"SEQ_CLS\"", "score", false },
    { "\"target_modules\":\"all-linear\"", "q", true },
    { "\"target_modules\":\"ALL-Linear\"", "q", true },
    { "\"target_modules\":\"all_linear\"", "q", true },
    { "\"target_modules\":\".*\\\\.(q|v)\"", "model.q", true },
    { "\"target_modules\":\".*\\\\.(q|v)\"", "model.qv", false },
    { "\"target_modules\":\"q\"", "model.q", false },
    { "\"target_modules\":[\"q\"],\"exclude_modules\":[\"0.q\"]", "layers.0.q", false },
    { "\"target_modules\":[\"q\"],\"exclude_modules\":[\"0.q\"]", "layers.1.q", true },
    { "\"target_modules\":[\"q\"],\"exclude_modules\":\".*0.*\"", "layers.0.q", false },
    { "\"target_modules\":[\"q\"],\"exclude_modules\":\"all-linear\"", "layers.0.q", true },
    { "\"target_modules\":[\"q\"],\"exclude_modules\":\"\"", "layers.0.q", true },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":1", "model.layers.1.q", true },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":1", "model.layers.10.q", false },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0,2]", "model.layers.2.q", true },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0,2]", "model.layers.1.q", false },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0]", "layers.0.q", false },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0]", "lm.q", false },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0]", "q", true },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[1]", "m.l.1.experts.0.q", true },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0]", "m.l.1.experts.0.q", false },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[7]", "m.x.l.7.q", true },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0]", "m.l.99999999999999999999999999.q",
      false },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0],\"layers_pattern\":\"h\"", "h.0.q",
      true },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0],\"layers_pattern\":\"h\"", "m.h.0.q",
      true },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0],\"layers_pattern\":\"h\"", "xh.0.q",
      false },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0],\"layers_pattern\":\"h\"",
      "l.0.h.1.q", false },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[0],\"layers_pattern\":[\"g\",\"h\"]",
      "h.0.g.1.q", false },
    { "\"target_modules\":[\"q\"],\"layers_to_transform\":[1],\"layers_pattern\":[\"g\",\"h\"]",
      "h.0.g.1.q", true },
};

static void test_config__targets(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(targets); i++) {
        struct adapter_config config;
        struct error err = { 0 };
        bool targeted = !targets[i].targeted;
        char json[512];

        snprintf(json, sizeof(json), "{\"peft_type\":\"LORA\",%s}", targets[i].fields);
        if (parse(&config, json, NULL, &err) ||
            adapter_config_targets(&config, targets[i].name, &targeted, &err) ||
            targeted != targets[i].targeted)
            fail_msg("%s on '%s': %d %s", targets[i].fields, targets[i].name, targeted, err.text);
        adapter_config_release(&config);
    }
}

static void test_config__layers_need_plain_names(void **state)
{
    struct adapter_config config;
    struct error err = { 0 };
    bool targeted;

    (void)state;
    assert_int_equal(
        parse(&config, LORA(",\"target_modules\":[\"q\"],\"layers_to_transform\":[0]"), NULL, &err),
        0);
    assert_int_equal(adapter_config_targets(&config, "m.l.\xd9\xa0.q", &targeted, &err),
                     ERR_FORMAT);
    assert_int_equal(adapter_config_targets(&config, "m\n.l.0.q", &targeted, &err), ERR_FORMAT);
    adapter_config_release(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config__refuses),
        cmocka_unit_test(test_config__plain),
        cmocka_unit_test(test_config__admits),
        cmocka_unit_test(test_config__fields_of_the_other_type),
        cmocka_unit_test(test_config__patterns),
        cmocka_unit_test(test_config__pattern_that_is_the_name),
        cmocka_unit_test(test_config__targets),
        cmocka_unit_test(test_config__layers_need_plain_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

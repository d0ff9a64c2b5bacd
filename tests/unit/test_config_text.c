#include "format/config_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct facts_case {
    const char *json;
    int code;
    int tied;
    bool quantised;
    const char *model_type;
    const char *architecture;
};

static void test_config_text__facts(void **state)
{
    static const struct facts_case cases[] = {
        { "", ERR_FORMAT, 0, false, "", "" },
        { "[]", ERR_FORMAT, 0, false, "", "" },
        { "{\"a\": 1, \"a\": 2}", ERR_FORMAT, 0, false, "", "" },
        { "{\"a\": }", ERR_FORMAT, 0, false, "", "" },
        { "{}", 0, -1, false, "", "" },
        { "{\"x\": NaN, \"y\": -Infinity}", 0, -1, false, "", "" },
        { "{\"tie_word_embeddings\": true, \"model_type\": \"llama\"}", 0, 1, false, "llama", "" },
        { "{\"tie_word_embeddings\": \"yes\"}", 0, -1, false, "", "" },
        { "{\"text_config\": {\"tie_word_embeddings\": false}}", 0, 0, false, "", "" },
        { "{\"text_config\": {\"tie_word_embeddings\": false}, \"tie_word_embeddings\": true}", 0,
          1, false, "", "" },
        { "{\"architectures\": [\"A\", \"B\"], \"z\": [\"C\"]}", 0, -1, false, "", "B" },
        { "{\"a\": {\"quantization_config\": {}}}", 0, -1, true, "", "" },
        { "{\"quantization_config\": null}", 0, -1, false, "", "" },
        { "{\"a\": {\"model_type\": \"inner\"}}", 0, -1, false, "", "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config_facts facts = { .tied = 99 };
        struct error err = { 0 };
        int code = config_read_facts(&facts, cases[i].json, strlen(cases[i].json), &err);

        assert_int_equal(code, cases[i].code);
        if (code)
            continue;
        assert_int_equal(facts.tied, cases[i].tied);
        assert_int_equal(facts.quantised, cases[i].quantised);
        assert_string_equal(facts.model_type, cases[i].model_type);
        assert_string_equal(facts.architecture,
                            cases[i].architecture[0] == 'B' ? "A" : cases[i].architecture);
    }
}

struct edit_case {
    const char *before;
    bool untie;
    const char *dtype;
    const char *after;
};

static void test_config_text__edits(void **state)
{
    static const struct edit_case cases[] = {
        /* Nothing to change: byte for byte, odd spacing and Python's numbers included. */
        { "  {\"a\":1 ,\n\t\"b\" : [ NaN ]}\n\n", false, NULL,
          "  {\"a\":1 ,\n\t\"b\" : [ NaN ]}\n\n" },
        { "{\"tie_word_embeddings\": true}", true, NULL, "{\"tie_word_embeddings\": false}" },
        { "{\"tie_word_embeddings\": false}", true, NULL, "{\"tie_word_embeddings\": false}" },
        { "{\n  \"a\": 1\n}\n", true, NULL,
          "{\n  \"tie_word_embeddings\": false,\n  \"a\": 1\n}\n" },
        { "{\"a\": 1}", true, NULL, "{\"tie_word_embeddings\": false, \"a\": 1}" },
        { "{}", true, NULL, "{\"tie_word_embeddings\": false}" },
        { "{}", true, "float16", "{\"tie_word_embeddings\": false, \"torch_dtype\": \"float16\"}" },
        { "{ }", true, NULL, "{\"tie_word_embeddings\": false }" },
        { "{\"text_config\": {\"x\": 1}, \"tie_word_embeddings\": true}", true, NULL,
          "{\"text_config\": {\"tie_word_embeddings\": false, \"x\": 1}, "
          "\"tie_word_embeddings\": false}" },
        { "{\"vision_config\": {\"x\": 1}, \"tie_word_embeddings\": true}", true, NULL,
          "{\"vision_config\": {\"x\": 1}, \"tie_word_embeddings\": false}" },
        { "{\"torch_dtype\": \"float32\"}", false, "bfloat16", "{\"torch_dtype\": \"bfloat16\"}" },
        { "{\"dtype\": null, \"t\": {\"dtype\": \"float16\"}}", false, "float32",
          "{\"dtype\": \"float32\", \"t\": {\"dtype\": \"float32\"}}" },
        { "{\"dtype\": {\"a\": \"b\"}}", false, "float32", "{\"dtype\": {\"a\": \"b\"}}" },
        { "{\"a\": [\"dtype\", \"x\"]}", false, "float16",
          "{\"torch_dtype\": \"float16\", \"a\": [\"dtype\", \"x\"]}" },
        { "{\"a\": \"tie_word_embeddings\", \"b\": true}", true, "float16",
          "{\"tie_word_embeddings\": false, \"torch_dtype\": \"float16\", "
          "\"a\": \"tie_word_embeddings\", \"b\": true}" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct config_edits edits = { .untie = cases[i].untie, .dtype = cases[i].dtype };
        struct config_facts facts;
        struct text out = { 0 };
        struct error err = { 0 };

        assert_int_equal(config_apply(&out, cases[i].before, strlen(cases[i].before), &edits, &err),
                         0);
        assert_string_equal(out.data, cases[i].after);
        assert_int_equal(config_read_facts(&facts, out.data, out.bytes, &err), 0);
        if (cases[i].untie)
            assert_int_equal(facts.tied, 0);
        text_release(&out);
    }
}

struct numbers_case {
    const char *json;
    uint64_t vocab_size;
    uint64_t num_hidden_layers;
};

static void test_config_text__numbers(void **state)
{
    static const struct numbers_case cases[] = {
        { "{}", 0, 0 },
        { "{\"vocab_size\": 32000, \"num_hidden_layers\": 4}", 32000, 4 },
        { "{\"vocab_size\": 3.2e4, \"num_hidden_layers\": -4}", 0, 0 },
        { "{\"vocab_size\": \"5\", \"num_hidden_layers\": null}", 0, 0 },
        { "{\"vocab_size\": 99999999999999999999, \"num_hidden_layers\": 0}", 0, 0 },
        { "{\"n_layer\": 5}", 0, 5 },
        { "{\"n_layers\": 5}", 0, 5 },
        { "{\"num_layers\": 5, \"num_hidden_layers\": 6, \"n_layer\": 7}", 0, 6 },
        /* The outermost decides, wherever it stands in the text. */
        { "{\"text_config\": {\"vocab_size\": 5, \"num_hidden_layers\": 2}, \"vocab_size\": 6, "
          "\"num_hidden_layers\": 3}",
          6, 3 },
        { "{\"vocab_size\": 6, \"num_hidden_layers\": 3, "
          "\"text_config\": {\"vocab_size\": 5, \"num_hidden_layers\": 2}}",
          6, 3 },
        /* The usual spelling counts more than an outer level. */
        { "{\"num_layers\": 9, \"llm_config\": {\"num_hidden_layers\": 2}}", 0, 2 },
        { "{\"llm_config\": {\"num_hidden_layers\": 2}, \"num_layers\": 9}", 0, 2 },
        { "{\"language_config\": {\"vocab_size\": 5, \"n_layer\": 2}}", 5, 2 },
        { "{\"thinker_config\": {\"text_config\": {\"vocab_size\": 5, \"num_layers\": 2}}}", 5, 2 },
        /* A list says it where nothing else does. */
        { "{\"layers_block_type\": [\"a\", [{}, 1], null]}", 0, 3 },
        { "{\"layer_types\": [1, 2], \"text_config\": {\"num_layers\": 4}}", 0, 4 },
        { "{\"layer_types\": []}", 0, 0 },
        { "{\"layer_types\": 7}", 0, 0 },
        /* Other parts of a model. */
        { "{\"vision_config\": {\"num_hidden_layers\": 24, \"vocab_size\": 7}}", 0, 0 },
        { "{\"talker_config\": {\"text_config\": {\"num_hidden_layers\": 24}}}", 0, 0 },
        { "{\"text_config\": {\"vision_config\": {\"num_hidden_layers\": 24}}}", 0, 0 },
        { "{\"text_config\": [{\"num_hidden_layers\": 24}]}", 0, 0 },
        { "{\"x\": [\"num_hidden_layers\", 24]}", 0, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config_facts facts;
        struct error err = { 0 };

        assert_int_equal(config_read_facts(&facts, cases[i].json, strlen(cases[i].json), &err), 0);
        assert_int_equal(facts.vocab_size, cases[i].vocab_size);
        assert_int_equal(facts.num_hidden_layers, cases[i].num_hidden_layers);
    }
}

struct text_case {
    const char *before;
    const char *after;
};

static void check_edits(const struct text_case *cases, size_t count,
                        const struct config_edits *edits)
{
    for (size_t i = 0; i < count; i++) {
        struct config_facts facts;
        struct text out = { 0 };
        struct error err = { 0 };

        assert_int_equal(config_read_facts(&facts, cases[i].before, strlen(cases[i].before), &err),
                         0);
        assert_int_equal(config_apply(&out, cases[i].before, strlen(cases[i].before), edits, &err),
                         0);
        assert_string_equal(out.data, cases[i].after);
        assert_int_equal(config_read_facts(&facts, out.data, out.bytes, &err), 0);
        text_release(&out);
    }
}

static void test_config_text__vocab(void **state)
{
    static const struct text_case cases[] = {
        { "{ \"vocab_size\" : 100 , \"a\": 100}", "{ \"vocab_size\" : 104 , \"a\": 100}" },
        { "{\"vocab_size\": 100, \"text_config\": {\"vocab_size\": 100}}",
          "{\"vocab_size\": 104, \"text_config\": {\"vocab_size\": 104}}" },
        { "{\"vocab_size\": 99, \"text_config\": {\"vocab_size\": 100}}",
          "{\"vocab_size\": 99, \"text_config\": {\"vocab_size\": 104}}" },
        { "{\"vocab_size\": 99, \"padded_vocab_size\": 100}",
          "{\"vocab_size\": 99, \"padded_vocab_size\": 104}" },
        { "{\"vocab_size\": \"100\"}", "{\"vocab_size\": \"100\"}" },
        { "{\"vocab_size\": 1e2}", "{\"vocab_size\": 1e2}" },
        { "{\"a\": [\"vocab_size\", 100], \"vocab_size\": 7}",
          "{\"a\": [\"vocab_size\", 100], \"vocab_size\": 7}" },
        /* Said nowhere: model code would take a number of its own. */
        { "{\n  \"a\": 1\n}", "{\n  \"vocab_size\": 104,\n  \"a\": 1\n}" },
        { "{\"text_config\": {\"a\": 1}, \"vision_config\": {\"vocab_size\": 3}}",
          "{\"text_config\": {\"vocab_size\": 104, \"a\": 1}, "
          "\"vision_config\": {\"vocab_size\": 3}}" },
    };
    const struct config_edits edits = { .vocab_from = 100, .vocab_to = 104 };

    (void)state;
    check_edits(cases, sizeof(cases) / sizeof(cases[0]), &edits);
}

static void test_config_text__labels(void **state)
{
    static const struct text_case cases[] = {
        { "{\n  \"a\": 1\n}", "{\n  \"num_labels\": 5,\n  \"a\": 1\n}" },
        { "{\"num_labels\": 2, \"id2label\": {\"0\": \"a\"}}",
          "{\"num_labels\": 5, \"id2label\": {\"0\": \"a\"}}" },
        { "{\"num_labels\": null}", "{\"num_labels\": 5}" },
        { "{\"text_config\": {\"num_labels\": 2}}",
          "{\"num_labels\": 5, \"text_config\": {\"num_labels\": 2}}" },
    };
    const struct config_edits edits = { .labels = 5 };

    (void)state;
    check_edits(cases, sizeof(cases) / sizeof(cases[0]), &edits);
}

static void test_config_text__layers(void **state)
{
    static const uint64_t base_layers[] = { 0, 1, 2, 1, 2 };
    static const struct text_case cases[] = {
        { "{\"num_hidden_layers\": 3, \"other\": 3}", "{\"num_hidden_layers\": 5, \"other\": 3}" },
        { "{\"n_layer\" :3,\"num_layers\":4}", "{\"n_layer\" :5,\"num_layers\":4}" },
        { "{\"num_hidden_layers\": 3, \"layer_types\": [\n    \"a\",\n    \"b\",\n    \"c\"\n  ]}",
          "{\"num_hidden_layers\": 5, \"layer_types\": [\n    \"a\",\n    \"b\",\n    \"c\",\n    "
          "\"b\",\n    \"c\"\n  ]}" },
        { "{\"no_rope_layers\": [ 1,0,null ], \"num_hidden_layers\": 3}",
          "{\"no_rope_layers\": [ 1,0,null,0,null ], \"num_hidden_layers\": 5}" },
        /* Elements of any kind; what stands inside is copied as it is. */
        { "{\"num_hidden_layers\": 3, \"block_configs\": [{\"n_layer\": 3}, [1, [2]], {}], \"z\": "
          "1}",
          "{\"num_hidden_layers\": 5, \"block_configs\": [{\"n_layer\": 3}, [1, [2]], {}, "
          "[1, [2]], {}], \"z\": 1}" },
        /* No list of layers: another length, another key, another kind. */
        { "{\"num_hidden_layers\": 3, \"layer_types\": [1, 2], \"x\": [1, 2, 3], "
          "\"sliding_window\": 3, \"no_rope_layers\": []}",
          "{\"num_hidden_layers\": 5, \"layer_types\": [1, 2], \"x\": [1, 2, 3], "
          "\"sliding_window\": 3, \"no_rope_layers\": []}" },
        /* Numbers of layers: base layers 1 and 2 are new layers 1, 3 and 2, 4. */
        { "{\"num_hidden_layers\": 3, \"mlp_only_layers\": [2], \"moe_layers\": [ 1,0 ]}",
          "{\"num_hidden_layers\": 5, \"mlp_only_layers\": [2, 4], \"moe_layers\": [ 0,1,3 ]}" },
        { "{\"num_hidden_layers\": 3, \"mlp_only_layers\": [], \"moe_layers\": [7, \"x\", -1]}",
          "{\"num_hidden_layers\": 5, \"mlp_only_layers\": [], \"moe_layers\": []}" },
        { "{\"num_hidden_layers\": 3, \"hybrid_override_pattern\": \"M*-\"}",
          "{\"num_hidden_layers\": 5, \"hybrid_override_pattern\": \"M*-*-\"}" },
        { "{\"num_hidden_layers\": 3, \"hybrid_override_pattern\": \"M\xc3\xa9\"}",
          "{\"num_hidden_layers\": 5, \"hybrid_override_pattern\": \"M\xc3\xa9\"}" },
        { "{\"num_hidden_layers\": 3, \"max_window_layers\": 3}",
          "{\"num_hidden_layers\": 5, \"max_window_layers\": 5}" },
        { "{\"num_hidden_layers\": 3, \"max_window_layers\": 2}",
          "{\"num_hidden_layers\": 5, \"max_window_layers\": 2}" },
        { "{\"layers_block_type\": [\"a\", \"b\", \"c\"]}",
          "{\"layers_block_type\": [\"a\", \"b\", \"c\", \"b\", \"c\"]}" },
        /* Only the language model has new layers. */
        { "{\"vision_config\": {\"num_hidden_layers\": 3, \"layer_types\": [1, 2, 3]}, "
          "\"text_config\": {\"num_hidden_layers\": 3, \"layer_types\": [1, 2, 3]}}",
          "{\"vision_config\": {\"num_hidden_layers\": 3, \"layer_types\": [1, 2, 3]}, "
          "\"text_config\": {\"num_hidden_layers\": 5, \"layer_types\": [1, 2, 3, 2, 3]}}" },
        { "{\"num_hidden_layers\": 3, \"text_config\": {\"num_hidden_layers\": 3}, "
          "\"audio_config\": {\"text_config\": {\"num_hidden_layers\": 3}}}",
          "{\"num_hidden_layers\": 5, \"text_config\": {\"num_hidden_layers\": 5}, "
          "\"audio_config\": {\"text_config\": {\"num_hidden_layers\": 3}}}" },
    };
    const struct config_edits edits = { .base_layers = base_layers, .base_layer_count = 5 };

    (void)state;
    check_edits(cases, sizeof(cases) / sizeof(cases[0]), &edits);
}

/* One layer that becomes several has no separator to go by. */
static void test_config_text__one_layer(void **state)
{
    static const uint64_t base_layers[] = { 0, 0 };
    static const struct text_case cases[] = {
        { "{\"num_hidden_layers\": 1, \"layer_types\": [ \"a\" ], \"moe_layers\": [0]}",
          "{\"num_hidden_layers\": 2, \"layer_types\": [ \"a\", \"a\" ], \"moe_layers\": [0, 1]}" },
    };
    const struct config_edits edits = { .base_layers = base_layers, .base_layer_count = 2 };

    (void)state;
    check_edits(cases, 1, &edits);
}

static void check_refused(const char *json, const struct config_edits *edits, int code,
                          const char *part)
{
    struct text out = { 0 };
    struct error err = { 0 };

    assert_int_equal(config_apply(&out, json, strlen(json), edits, &err), code);
    assert_non_null(strstr(err.text, part));
    text_release(&out);
}

static void test_config_text__refused_layers(void **state)
{
    static const uint64_t base_layers[] = { 0, 2 };
    const struct config_edits edits = { .base_layers = base_layers, .base_layer_count = 2 };

    (void)state;
    check_refused("{}", &edits, ERR_FORMAT, "how many layers");
    check_refused("{\"vision_config\": {\"num_hidden_layers\": 3}}", &edits, ERR_FORMAT,
                  "how many layers");
    check_refused("{\"num_hidden_layers\": 2}", &edits, ERR_MISMATCH, "layer 2 of the base");
}

/* A list of few long elements may not become larger than any document may be. */
static void test_config_text__large(void **state)
{
    enum { LAYERS = 70, ELEMENT = 1 << 20 };
    static uint64_t base_layers[LAYERS];
    const struct config_edits edits = { .base_layers = base_layers, .base_layer_count = LAYERS };
    struct text json = { 0 };

    (void)state;
    text_adds(&json, "{\"num_hidden_layers\": 1, \"layer_types\": [\"");
    for (size_t i = 0; i < ELEMENT; i++)
        text_add(&json, "a", 1);
    text_adds(&json, "\"]}");
    assert_false(json.failed);
    check_refused(json.data, &edits, ERR_FORMAT, "70 layers");
    text_release(&json);
}

static void test_config_text__members(void **state)
{
    static const struct {
        const char *before;
        const char *after; /* with "a": true and "b": "x" set */
    } cases[] = {
        { "{\"a\": false, \"b\": null, \"c\": NaN}", "{\"a\": true, \"b\": \"x\", \"c\": NaN}" },
        { "{\n  \"b\" :  {\"a\": [1, {\"b\": 2}]} ,\n  \"a\":[]\n}\n",
          "{\n  \"b\" :  \"x\" ,\n  \"a\":true\n}\n" },
        { "{\"c\": {\"a\": 1, \"b\": 2}}",
          "{\"a\": true, \"b\": \"x\", \"c\": {\"a\": 1, \"b\": 2}}" },
        { "{\n  \"b\": 1\n}", "{\n  \"a\": true,\n  \"b\": \"x\"\n}" },
        { "{}", "{\"a\": true, \"b\": \"x\"}" },
        { "{\"\\u0061\": 1, \"b\": \"a\"}", "{\"\\u0061\": true, \"b\": \"x\"}" },
    };
    static const struct config_member members[] = { { "a", "true" }, { "b", "\"x\"" } };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct text out = { 0 };
        struct error err = { 0 };

        assert_int_equal(
            config_set_members(&out, cases[i].before, strlen(cases[i].before), members, 2, &err),
            0);
        assert_string_equal(out.data, cases[i].after);
        text_release(&out);
    }
}

static void test_config_text__unquantise(void **state)
{
    static const struct text_case cases[] = {
        { "{\"a\": 1}", "{\"a\": 1}" },
        { "{}", "{}" },
        { "{\"quantization_config\": {}}", "{}" },
        { "{ \"quantization_config\" : null }", "{  }" },
        { "{\"a\": [1], \"quantization_config\": {\"b\": [{}]}}", "{\"a\": [1]}" },
        { "{\"quantization_config\": {\"x\": \",\"} , \"a\": 1}", "{\"a\": 1}" },
        { "{\n  \"a\": {\"b\": {}},\n  \"quantization_config\": {\n    \"x\": 1\n  },\n"
          "  \"c\": 2\n}\n",
          "{\n  \"a\": {\"b\": {}},\n  \"c\": 2\n}\n" },
        { "{\n  \"a\": 1 ,\n  \"quantization_config\": 7\n}\n", "{\n  \"a\": 1\n}\n" },
        /* Both, one behind the other, wherever they stand. */
        { "{\"quantization_config\": {}, \"compression_config\": {}}", "{}" },
        { "{\"quantization_config\": {}, \"compression_config\": {}, \"a\": 1}", "{\"a\": 1}" },
        { "{\"a\": 1, \"quantization_config\": {}, \"compression_config\": {}}", "{\"a\": 1}" },
        { "{\"quantization_config\": {}, \"a\": 1, \"compression_config\": []}", "{\"a\": 1}" },
        { "{\"a\": 1, \"compression_config\": 1, \"quantization_config\": 2, \"b\": NaN}",
          "{\"a\": 1, \"b\": NaN}" },
        { "{\"quantization\": {}, \"quantization_config\": {}, \"a\": 1}", "{\"a\": 1}" },
        /* At every level, spelled in any way; the dtype that was before stays. */
        { "{\"text_config\": {\"quantization_config\": {}}, \"v\": [{\"a\": 1, "
          "\"quantization_config\": 1}, {\"quantization_config\": 2, \"b\": 3}]}",
          "{\"text_config\": {}, \"v\": [{\"a\": 1}, {\"b\": 3}]}" },
        { "{\"quantization\\u005fconfig\": {\"quantization_config\": {}}, "
          "\"_pre_quantization_dtype\": \"bfloat16\"}",
          "{\"_pre_quantization_dtype\": \"bfloat16\"}" },
        { "{\"a\": \"quantization_config\", \"b\": [\"quantization_config\", 1]}",
          "{\"a\": \"quantization_config\", \"b\": [\"quantization_config\", 1]}" },
    };
    const struct config_edits edits = { .unquantise = true };
    struct config_facts facts;
    struct error err = { 0 };

    (void)state;
    check_edits(cases, sizeof(cases) / sizeof(cases[0]), &edits);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(config_read_facts(&facts, cases[i].after, strlen(cases[i].after), &err),
                         0);
        assert_false(facts.quantised);
    }
}

/* With other edits: what is put in front must not meet what goes. */
static void test_config_text__unquantise_and_more(void **state)
{
    static const struct text_case cases[] = {
        { "{\"quantization_config\": {\"dtype\": \"x\"}}",
          "{\"tie_word_embeddings\": false, \"torch_dtype\": \"float16\"}" },
        { "{\n  \"quantization_config\": {\"tie_word_embeddings\": true},\n  \"dtype\": null\n}",
          "{\n  \"tie_word_embeddings\": false,\n  \"dtype\": \"float16\"\n}" },
    };
    const struct config_edits edits = { .unquantise = true, .untie = true, .dtype = "float16" };

    (void)state;
    check_edits(cases, sizeof(cases) / sizeof(cases[0]), &edits);
}

static void test_config_text__quantise(void **state)
{
    static const struct text_case kept[] = {
        { "{}", "{\"quantization_config\": {\"q\": 1}}" },
        { "{\"a\": 1}", "{\"quantization_config\": {\"q\": 1}, \"a\": 1}" },
        { "{\n  \"a\": 1\n}\n", "{\n  \"quantization_config\": {\"q\": 1},\n  \"a\": 1\n}\n" },
        { "{\"a\": 1, \"quantization_config\" : {\"x\": [{}]}, \"b\": 2}",
          "{\"a\": 1, \"quantization_config\" : {\"q\": 1}, \"b\": 2}" },
        { "{\"t\": {\"quantization_config\": {}}, \"compression_config\": 1}",
          "{\"quantization_config\": {\"q\": 1}, \"t\": {\"quantization_config\": {}}, "
          "\"compression_config\": 1}" },
    };
    static const struct text_case removed[] = {
        { "{\"compression_config\": 1, \"quantization_config\" : 2, "
          "\"t\": {\"quantization_config\": {}}}",
          "{\"quantization_config\" : {\"q\": 1}, \"t\": {}}" },
        { "{\"compression_config\": 1}", "{\"quantization_config\": {\"q\": 1}}" },
    };
    struct config_edits edits = { .quantise = "{\"q\": 1}" };

    (void)state;
    check_edits(kept, sizeof(kept) / sizeof(kept[0]), &edits);
    edits.unquantise = true;
    check_edits(removed, sizeof(removed) / sizeof(removed[0]), &edits);
}

/* What save_pretrained() of transformers 5.23 writes into config.json. */
#define BNB_PLAIN                                                                                  \
    "{\n"                                                                                          \
    "    \"_load_in_4bit\": true,\n"                                                               \
    "    \"_load_in_8bit\": false,\n"                                                              \
    "    \"bnb_4bit_compute_dtype\": \"bfloat16\",\n"                                              \
    "    \"bnb_4bit_quant_storage\": \"uint8\",\n"                                                 \
    "    \"bnb_4bit_quant_type\": \"nf4\",\n"                                                      \
    "    \"bnb_4bit_use_double_quant\": false,\n"                                                  \
    "    \"llm_int8_enable_fp32_cpu_offload\": false,\n"                                           \
    "    \"llm_int8_has_fp16_weight\": false,\n"                                                   \
    "    \"llm_int8_skip_modules\": null,\n"                                                       \
    "    \"llm_int8_threshold\": 6.0,\n"                                                           \
    "    \"load_in_4bit\": true,\n"                                                                \
    "    \"load_in_8bit\": false,\n"                                                               \
    "    \"quant_method\": \"bitsandbytes\"\n"                                                     \
    "  }"

#define BNB_NESTED                                                                                 \
    "{\n"                                                                                          \
    "    \"_load_in_4bit\": true,\n"                                                               \
    "    \"_load_in_8bit\": false,\n"                                                              \
    "    \"bnb_4bit_compute_dtype\": \"float16\",\n"                                               \
    "    \"bnb_4bit_quant_storage\": \"uint8\",\n"                                                 \
    "    \"bnb_4bit_quant_type\": \"fp4\",\n"                                                      \
    "    \"bnb_4bit_use_double_quant\": true,\n"                                                   \
    "    \"llm_int8_enable_fp32_cpu_offload\": false,\n"                                           \
    "    \"llm_int8_has_fp16_weight\": false,\n"                                                   \
    "    \"llm_int8_skip_modules\": [\n"                                                           \
    "      \"lm_head\",\n"                                                                         \
    "      \"x.\\\"y\"\n"                                                                          \
    "    ],\n"                                                                                     \
    "    \"llm_int8_threshold\": 6.0,\n"                                                           \
    "    \"load_in_4bit\": true,\n"                                                                \
    "    \"load_in_8bit\": false,\n"                                                               \
    "    \"quant_method\": \"bitsandbytes\"\n"                                                     \
    "  }"

static void test_config_text__bnb(void **state)
{
    static const char *const skip[] = { "lm_head", "x.\"y" };
    const struct config_bnb plain = { .quant_type = "nf4", .compute_dtype = "bfloat16" };
    const struct config_bnb nested = { "fp4", "float16", true, skip, 2 };
    struct text out = { 0 };

    (void)state;
    config_bnb_text(&out, &plain);
    assert_string_equal(out.data, BNB_PLAIN);
    text_clear(&out);
    config_bnb_text(&out, &nested);
    assert_string_equal(out.data, BNB_NESTED);
    text_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_text__members),
        cmocka_unit_test(test_config_text__unquantise),
        cmocka_unit_test(test_config_text__unquantise_and_more),
        cmocka_unit_test(test_config_text__quantise),
        cmocka_unit_test(test_config_text__bnb),
        cmocka_unit_test(test_config_text__facts),
        cmocka_unit_test(test_config_text__edits),
        cmocka_unit_test(test_config_text__numbers),
        cmocka_unit_test(test_config_text__vocab),
        cmocka_unit_test(test_config_text__labels),
        cmocka_unit_test(test_config_text__layers),
        cmocka_unit_test(test_config_text__one_layer),
        cmocka_unit_test(test_config_text__refused_layers),
        cmocka_unit_test(test_config_text__large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

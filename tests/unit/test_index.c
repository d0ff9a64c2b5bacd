#include "base/error.h"
#include "base/text.h"
#include "format/index.h"
#include "format/model.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LITERAL(string) string, sizeof(string) - 1

static const struct {
    const char *json;
    size_t bytes;
    const char *part; /* of the sentence */
} bad_cases[] = {
    { LITERAL(""), "expected a value" },
    { LITERAL("[]"), "the index is not a JSON object" },
    { LITERAL("{}"), "the index has no weight_map" },
    { LITERAL("{\"metadata\":{\"weight_map\":{\"a\":\"b\"}}}"), "the index has no weight_map" },
    { LITERAL("{\"weight_map\":[]}"), "weight_map is not an object" },
    { LITERAL("{\"weight_map\":null}"), "weight_map is not an object" },
    { LITERAL("{\"weight_map\":{}}"), "weight_map is empty" },
    { LITERAL("{\"weight_map\":{\"a\":\"b\"}"), "expected ',' or '}'" },
    { LITERAL("{\"weight_map\":{\"a\":\"b\"}}x"), "nothing behind the value" },
    { LITERAL("{\"weight_map\":{\"a\":\"b\"},\"weight_map\":{\"a\":\"b\"}}"),
      "weight_map appears twice" },
    { LITERAL("{\"weight_map\":{\"a\":\"b\"},\"\\u0077eight_map\":{\"a\":\"b\"}}"),
      "weight_map appears twice" },
    { LITERAL("{\"weight_map\":{\"a\":1}}"), "tensor 'a': its shard is not a string" },
    { LITERAL("{\"weight_map\":{\"a\":[\"b\"]}}"), "tensor 'a': its shard is not a string" },
    { LITERAL("{\"weight_map\":{\"a\":\"s\",\"b\":\"s\",\"a\":\"s\"}}"),
      "weight_map names tensor 'a' twice" },
    { LITERAL("{\"weight_map\":{\"a\":\"s\",\"\\u0061\":\"t\"}}"),
      "weight_map names tensor 'a' twice" },
    { LITERAL("{\"weight_map\":{\"a\\u0000\":\"s\"}}"), "the name contains NUL" },
    { LITERAL("{\"weight_map\":{\"\xfe\":\"s\"}}"), "not UTF-8" },
    { LITERAL("{\"weight_map\":{\"a\":\"\"}}"), "its shard '' is not a plain name" },
    { LITERAL("{\"weight_map\":{\"a\":\"../x\"}}"), "its shard '../x' is not a plain name" },
    { LITERAL("{\"weight_map\":{\"a\":\"\\u002e./x\"}}"), "its shard '../x' is not a plain" },
    { LITERAL("{\"weight_map\":{\"a\":\"/etc/passwd\"}}"), "is not a plain name" },
    { LITERAL("{\"weight_map\":{\"a\":\"x\\u0000.safetensors\"}}"), "its shard 'x\\x00" },
    { LITERAL("{\"weight_map\":{\"a\":\"x\\ny\"}}"), "its shard 'x\\x0ay'" },
};

static void test_index__refuses_bad_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad_cases); i++) {
        char *copy = malloc(bad_cases[i].bytes + !bad_cases[i].bytes);
        struct index index = { 0 };
        struct error err = { 0 };

        memcpy(copy, bad_cases[i].json, bad_cases[i].bytes);
        if (index_parse(&index, copy, bad_cases[i].bytes, &err) != ERR_FORMAT ||
            !strstr(err.text, bad_cases[i].part))
            fail_msg("case %zu (%s): %d '%s', wanted '%s'", i, bad_cases[i].json, err.code,
                     err.text, bad_cases[i].part);
        assert_null(index.entries);
        free(copy);
    }
}

static void test_index__limits_names(void **state)
{
    struct text json = { 0 };
    struct index index = { 0 };
    struct error err = { 0 };
    (void)state;

    text_adds(&json, "{\"weight_map\":{\"");
    for (int i = 0; i < 4097; i++)
        text_adds(&json, "n");
    text_adds(&json, "\":\"s\"}}");
    assert_int_equal(index_parse(&index, json.data, json.bytes, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "a tensor name of 4097 bytes, at most 4096"));
    text_release(&json);
}

static void test_index__limits_shards(void **state)
{
    struct text json = { 0 };
    (void)state;

    for (unsigned count = MODEL_SHARDS_MAX; count <= MODEL_SHARDS_MAX + 1; count++) {
        struct index index = { 0 };
        struct error err = { 0 };
        int wanted = count > MODEL_SHARDS_MAX ? ERR_FORMAT : 0;

        text_clear(&json);
        text_adds(&json, "{\"weight_map\":{");
        for (unsigned i = 0; i < count; i++)
            text_addf(&json, "%s\"t%u\":\"s%u\"", i ? "," : "", i, i);
        text_adds(&json, "}}");
        assert_int_equal(index_parse(&index, json.data, json.bytes, &err), wanted);
        if (wanted)
            assert_non_null(strstr(err.text, "100001 shards, at most 100000"));
        else
            assert_int_equal(index.shard_count, MODEL_SHARDS_MAX);
        index_release(&index);
    }
    text_release(&json);
}

static void test_index__parses(void **state)
{
    static const char json[] =
        "{ \"metadata\": {\"total_size\": 12.0, \"x\": [NaN]}, \"weight_map\": {\n"
        "\"z\": \"m-2\", \"y\": \"m-1\", \"\": \"m-1\", \"\\u00e9\": \"sub/m-3\", \"x\": \"m-2\"},"
        " \"more\": null }\n";
    static const char *const names[] = { "z", "y", "", "\xc3\xa9", "x" };
    static const char *const shards[] = { "m-2", "m-1", "m-1", "sub/m-3", "m-2" };
    struct index index = { 0 };
    struct error err = { 0 };
    (void)state;

    if (index_parse(&index, json, sizeof(json) - 1, &err))
        fail_msg("%s", err.text);
    assert_int_equal(index.entry_count, COUNT(names));
    assert_int_equal(index.shard_count, 3);
    for (size_t i = 0; i + 1 < index.shard_count; i++)
        assert_true(strcmp(index.shard_names[i], index.shard_names[i + 1]) < 0);
    for (size_t i = 0; i < COUNT(names); i++) {
        const struct index_entry *entry = &index.entries[i];

        assert_string_equal(index.names + entry->name_offset, names[i]);
        assert_int_equal(entry->name_bytes, strlen(names[i]));
        assert_string_equal(index.shard_names[entry->shard], shards[i]);
    }
    index_release(&index);
    index_release(&index);
}

static void test_index__many_tensors(void **state)
{
    enum { TENSORS = 100000 };
    struct text json = { 0 };
    struct index index = { 0 };
    struct error err = { 0 };
    (void)state;

    text_adds(&json, "{\"weight_map\":{");
    for (int i = TENSORS - 1; i >= 0; i--)
        text_addf(&json, "%s\"model.layers.%d.weight\":\"model-%05d.safetensors\"",
                  i == TENSORS - 1 ? "" : ",", i, i % 97);
    text_adds(&json, "}}");
    if (index_parse(&index, json.data, json.bytes, &err))
        fail_msg("%s", err.text);
    assert_int_equal(index.entry_count, TENSORS);
    assert_int_equal(index.shard_count, 97);
    for (int i = 0; i < TENSORS; i++)
        assert_int_equal(index.entries[i].shard, (TENSORS - 1 - i) % 97);
    index_release(&index);
    text_release(&json);
}

/* What json.dumps(..., indent=2, sort_keys=True) + "\n" of Python gives. */
static void test_index__emits_as_python_does(void **state)
{
    static const struct index_line lines[] = {
        { "", "a" },
        { "a\"\\\b\f\n\r\t\x01\x7f/", "b" },
        { "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9" },
    };
    static const char expected[] =
        "{\n  \"metadata\": {\n    \"total_parameters\": 18446744073709551615,\n"
        "    \"total_size\": 7\n  },\n  \"weight_map\": {\n    \"\": \"a\",\n"
        "    \"a\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u007f/\": \"b\",\n"
        "    \"\\u00e9\\u20ac\\ud83d\\ude00\": \"\\u00e9\"\n  }\n}\n";
    struct text out = { 0 };
    struct index index = { 0 };
    struct error err = { 0 };
    (void)state;

    index_emit(&out, lines, COUNT(lines), 7, UINT64_MAX);
    assert_string_equal(out.data, expected);
    if (index_parse(&index, out.data, out.bytes, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < COUNT(lines); i++)
        assert_string_equal(index.names + index.entries[i].name_offset, lines[i].name);
    index_release(&index);
    text_release(&out);
}

static void test_index__emits_an_empty_map(void **state)
{
    struct text out = { 0 };
    (void)state;

    index_emit(&out, NULL, 0, 0, 0);
    assert_string_equal(out.data, "{\n  \"metadata\": {\n    \"total_parameters\": 0,\n"
                                  "    \"total_size\": 0\n  },\n  \"weight_map\": {}\n}\n");
    text_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index__refuses_bad_text),
        cmocka_unit_test(test_index__limits_names),
        cmocka_unit_test(test_index__limits_shards),
        cmocka_unit_test(test_index__parses),
        cmocka_unit_test(test_index__many_tensors),
        cmocka_unit_test(test_index__emits_as_python_does),
        cmocka_unit_test(test_index__emits_an_empty_map),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

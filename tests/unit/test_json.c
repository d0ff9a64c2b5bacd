#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "comma_locale.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LITERAL(string) string, sizeof(string) - 1

struct bad_case {
    const char *json;
    size_t bytes;
    const char *part; /* of the sentence */
};

static const struct bad_case bad_cases[] = {
    { LITERAL(""), "at byte 0: expected a value, found the end" },
    { LITERAL("   "), "at byte 3: expected a value" },
    { LITERAL("\xef\xbb\xbf{}"), "byte order mark" },
    { LITERAL("{"), "expected a name in double quotes, found the end" },
    { LITERAL("["), "expected a value, found the end" },
    { LITERAL("[1"), "expected ',' or ']', found the end" },
    { LITERAL("[1,]"), "at byte 3: expected a value, found ']'" },
    { LITERAL("[1 2]"), "expected ',' or ']', found '2'" },
    { LITERAL("[1}"), "expected ',' or ']', found '}'" },
    { LITERAL("{\"a\":1]"), "expected ',' or '}', found ']'" },
    { LITERAL("{\"a\":1,}"), "expected a name in double quotes, found '}'" },
    { LITERAL("{,}"), "expected a name" },
    { LITERAL("[,1]"), "expected a value, found ','" },
    { LITERAL("{a:1}"), "expected a name in double quotes, found 'a'" },
    { LITERAL("{'a':1}"), "expected a name in double quotes" },
    { LITERAL("{\"a\" 1}"), "expected ':', found '1'" },
    { LITERAL("{\"a\":}"), "expected a value, found '}'" },
    { LITERAL("{\"a\"}"), "expected ':', found '}'" },
    { LITERAL("{1:1}"), "expected a name" },
    { LITERAL("1 2"), "expected nothing behind the value, found '2'" },
    { LITERAL("{}}"), "expected nothing behind the value" },
    { LITERAL("{}\0"), "expected nothing behind the value, found '\\x00'" },
    { LITERAL("[] // no"), "expected nothing behind" },
    { LITERAL("]"), "expected a value, found ']'" },
    { LITERAL("tru"), "expected a value, found 't'" },
    { LITERAL("True"), "expected a value, found 'T'" },
    { LITERAL("nulll"), "expected nothing behind the value" },
    { LITERAL("01"), "needless zero" },
    { LITERAL("-01"), "needless zero" },
    { LITERAL("-"), "expected a digit, found the end" },
    { LITERAL("-x"), "expected a digit, found 'x'" },
    { LITERAL("+1"), "expected a value, found '+'" },
    { LITERAL(".5"), "expected a value, found '.'" },
    { LITERAL("1."), "expected a digit" },
    { LITERAL("1.e5"), "expected a digit, found 'e'" },
    { LITERAL("1e"), "expected a digit" },
    { LITERAL("1e+"), "expected a digit" },
    { LITERAL("0x10"), "expected nothing behind the value, found 'x'" },
    { LITERAL("NaN"), "expected a value, found 'N'" },
    { LITERAL("Infinity"), "expected a value, found 'I'" },
    { LITERAL("-Infinity"), "expected a digit, found 'I'" },
    { LITERAL("\"abc"), "ends inside a string" },
    { LITERAL("\"abc\\"), "escape" },
    { LITERAL("\"a\nb\""), "control character" },
    { LITERAL("\"a\0b\""), "control character" },
    { LITERAL("\"\\x41\""), "unknown escape" },
    { LITERAL("\"\\\0\""), "unknown escape" },
    { LITERAL("\"\\u12\""), "four hexadecimal digits" },
    { LITERAL("\"\\u12g4\""), "four hexadecimal digits" },
    { LITERAL("\"\\ud800\""), "surrogate" },
    { LITERAL("\"\\ud800x\""), "surrogate" },
    { LITERAL("\"\\ud800\\u0041\""), "surrogate" },
    { LITERAL("\"\\ud800\\ud800\""), "surrogate" },
    { LITERAL("\"\\udc00\""), "surrogate" },
    { LITERAL("\"\xff\""), "not UTF-8" },
    { LITERAL("\"\x80\""), "not UTF-8" },
    { LITERAL("\"\xc0\x80\""), "not UTF-8" },
    { LITERAL("\"\xc1\xbf\""), "not UTF-8" },
    { LITERAL("\"\xc3\""), "not UTF-8" },
    { LITERAL("\"\xe0\x80\x80\""), "not UTF-8" },
    { LITERAL("\"\xe2\x82\""), "not UTF-8" },
    { LITERAL("\"\xed\xa0\x80\""), "not UTF-8" },
    { LITERAL("\"\xf0\x80\x80\x80\""), "not UTF-8" },
    { LITERAL("\"\xf4\x90\x80\x80\""), "not UTF-8" },
    { LITERAL("\"\xf5\x80\x80\x80\""), "not UTF-8" },
    { LITERAL("{\"a\":1,\"a\":2}"), "key 'a' at byte 7 stands in the same object at byte 1" },
    { LITERAL("{\"a\":1,\"\\u0061\":2}"), "key 'a'" },
    { LITERAL("[{\"x\":{\"b\":1,\"c\":2,\"b\":3}}]"), "key 'b'" },
    { LITERAL("{\"\":1,\"\":2}"), "key ''" },
    { LITERAL("{\"a\\u0000b\":1}"), "contains \\u0000" },
    { LITERAL("[\"\\u0000\"]"), "contains \\u0000" },
};

static void test_json__refuses_bad_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad_cases); i++) {
        const struct bad_case *c = &bad_cases[i];
        /* An exact allocation lets ASan see a read behind the text. */
        char *copy = malloc(c->bytes + !c->bytes);
        struct error err = { 0 };
        cJSON *tree = NULL;

        memcpy(copy, c->json, c->bytes);
        if (json_check(copy, c->bytes, 0, &err) != ERR_FORMAT || !strstr(err.text, c->part))
            fail_msg("case %zu (%s): %d '%s', wanted '%s'", i, c->json, err.code, err.text,
                     c->part);
        assert_int_equal(json_parse(&tree, copy, c->bytes, 0, &err), ERR_FORMAT);
        assert_null(tree);
        free(copy);
    }
}

static void test_json__accepts_good_text(void **state)
{
    static const char *const good[] = {
        "{}",
        "[]",
        " [ ] ",
        "\t\r\n{}\n",
        "null",
        "0",
        "-0",
        "1e5",
        "1E-5",
        "-0.5e+10",
        "\"\"",
        "{\"a\":[1,2,{\"b\":null}],\"c\":{\"a\":1}}",
        "\"\\ud83d\\ude00\"",
        "\"\xf0\x9f\x98\x80\"",
        "[{\"a\":1},{\"a\":2}]",
        "{\"a\":{\"a\":{\"a\":{}}}}",
        "\"\x7f\"",
        "[true,false,null]",
        "{\"ab\":1,\"a\":2,\"abc\":3,\"\":4}",
    };
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        struct error err = { 0 };
        cJSON *tree = NULL;

        if (json_parse(&tree, good[i], strlen(good[i]), 0, &err))
            fail_msg("%s: %s", good[i], err.text);
        assert_non_null(tree);
        cJSON_Delete(tree);
    }
}

static void test_json__limits_depth(void **state)
{
    char text[2 * (JSON_DEPTH_MAX + 1)];
    struct error err = { 0 };
    cJSON *tree = NULL;
    (void)state;

    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    assert_int_equal(json_check(text, sizeof(text), 0, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "deeper than 64 levels"));
    assert_int_equal(json_parse(&tree, text + 1, sizeof(text) - 2, 0, &err), 0);
    cJSON_Delete(tree);
}

/* Many small values must not become a tree of gigabytes. */
static void test_json__limits_values(void **state)
{
    size_t pairs = JSON_TOKENS_MAX / 2;
    struct text text = { 0 };
    struct error err = { 0 };
    (void)state;

    text_adds(&text, "[");
    for (size_t i = 0; i < pairs; i++)
        text_adds(&text, "[],");
    text_adds(&text, "0]");
    assert_int_equal(json_check(text.data, text.bytes, 0, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "more than 1000000 keys and values"));
    text_release(&text);
}

static void test_json__limits_bytes(void **state)
{
    struct error err = { 0 };
    (void)state;

    /* The size is judged before the text is read. */
    assert_int_equal(json_check("{}", (size_t)JSON_DOCUMENT_BYTES_MAX + 1, 0, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "at most 67108864"));
}

static void test_json__finds_a_duplicate_among_many(void **state)
{
    struct text text = { 0 };
    struct error err = { 0 };
    (void)state;

    for (int round = 0; round < 2; round++) {
        text_clear(&text);
        text_adds(&text, "{");
        for (int i = 0; i < 200000; i++)
            text_addf(&text, "%s\"key.%d\":%d", i ? "," : "", i, i);
        text_adds(&text, round ? ",\"key.\\u0031\\u00370\":0}" : "}");
        assert_int_equal(json_check(text.data, text.bytes, 0, &err), round ? ERR_FORMAT : 0);
    }
    assert_non_null(strstr(err.text, "'key.170'"));
    text_release(&text);
}

static void test_json__tokens(void **state)
{
    static const char json[] = " {\"a\" : [1, \"x\\n\"], \"b\":{}, \"c\":true}";
    static const struct {
        enum json_kind kind;
        const char *raw;
        unsigned depth;
        bool escaped;
    } expected[] = {
        { JSON_OBJECT_BEGIN, "{", 0, false }, { JSON_KEY, "\"a\"", 1, false },
        { JSON_ARRAY_BEGIN, "[", 1, false },  { JSON_NUMBER, "1", 2, false },
        { JSON_STRING, "\"x\\n\"", 2, true }, { JSON_ARRAY_END, "]", 1, false },
        { JSON_KEY, "\"b\"", 1, false },      { JSON_OBJECT_BEGIN, "{", 1, false },
        { JSON_OBJECT_END, "}", 1, false },   { JSON_KEY, "\"c\"", 1, false },
        { JSON_TRUE, "true", 1, false },      { JSON_OBJECT_END, "}", 0, false },
        { JSON_END, "", 0, false },           { JSON_END, "", 0, false },
    };
    struct json_reader reader;
    struct json_token token;
    struct error err = { 0 };
    (void)state;

    json_reader_init(&reader, json, sizeof(json) - 1, 0);
    for (size_t i = 0; i < COUNT(expected); i++) {
        assert_int_equal(json_next(&reader, &token, &err), 0);
        assert_int_equal(token.kind, expected[i].kind);
        assert_int_equal(token.bytes, strlen(expected[i].raw));
        assert_memory_equal(token.begin, expected[i].raw, token.bytes);
        assert_int_equal(token.depth, expected[i].depth);
        assert_int_equal(token.escaped, expected[i].escaped);
    }
}

static void test_json__skip(void **state)
{
    static const char json[] = "[[1,[2],{\"a\":[]}],3,{},4]";
    struct json_reader reader;
    struct json_token token;
    struct error err = { 0 };
    (void)state;

    json_reader_init(&reader, json, sizeof(json) - 1, 0);
    assert_int_equal(json_next(&reader, &token, &err), 0);
    for (const char *p = "[3{4"; *p; p++) {
        assert_int_equal(json_next(&reader, &token, &err), 0);
        assert_int_equal(token.begin[0], *p);
        assert_int_equal(json_skip(&reader, &token, &err), 0);
    }
    assert_int_equal(json_next(&reader, &token, &err), 0);
    assert_int_equal(token.kind, JSON_ARRAY_END);

    json_reader_init(&reader, "[[1,", 4, 0);
    assert_int_equal(json_next(&reader, &token, &err), 0);
    assert_int_equal(json_skip(&reader, &token, &err), ERR_FORMAT);
}

static void test_json__decodes_strings(void **state)
{
    static const struct {
        const char *json;
        const char *decoded;
        size_t bytes;
    } cases[] = {
        { "\"\"", LITERAL("") },
        { "\"plain\"", LITERAL("plain") },
        { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", LITERAL("\"\\/\b\f\n\r\t") },
        { "\"a\\u0041b\"", LITERAL("aAb") },
        { "\"\\u00e9\\u20AC\"", LITERAL("\xc3\xa9\xe2\x82\xac") },
        { "\"\\ud83d\\ude00x\"", LITERAL("\xf0\x9f\x98\x80x") },
        { "\"\\udbff\\udfff\"", LITERAL("\xf4\x8f\xbf\xbf") },
        { "\"a\\u0000b\"", LITERAL("a\0b") },
        { "\"\xc3\xa9\"", LITERAL("\xc3\xa9") },
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_reader reader;
        struct json_token token;
        struct text out = { 0 };
        struct error err = { 0 };

        json_reader_init(&reader, cases[i].json, strlen(cases[i].json), 0);
        assert_int_equal(json_next(&reader, &token, &err), 0);
        json_string_decode(&token, &out);
        assert_int_equal(out.bytes, cases[i].bytes);
        assert_memory_equal(out.data, cases[i].decoded, out.bytes);
        assert_int_equal(json_string_is(&token, cases[i].decoded),
                         strlen(cases[i].decoded) == out.bytes);
        assert_false(json_string_is(&token, "other"));
        text_release(&out);
    }
}

static void test_json__whole_numbers(void **state)
{
    static const struct {
        const char *json;
        bool valid;
        uint64_t value;
    } cases[] = {
        { "-1", false, 0 },
        { "-0", false, 0 },
        { "1.0", false, 0 },
        { "1e0", false, 0 },
        { "true", false, 0 },
        { "\"1\"", false, 0 },
        { "18446744073709551616", false, 0 },
        { "99999999999999999999999", false, 0 },
        { "0", true, 0 },
        { "7", true, 7 },
        { "18446744073709551615", true, UINT64_MAX },
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_reader reader;
        struct json_token token;
        struct error err = { 0 };
        uint64_t value = 42;

        json_reader_init(&reader, cases[i].json, strlen(cases[i].json), 0);
        assert_int_equal(json_next(&reader, &token, &err), 0);
        assert_int_equal(json_number_u64(&token, &value), cases[i].valid);
        assert_true(value == (cases[i].valid ? cases[i].value : 42));
    }
}

static double parse_number(const char *json, unsigned flags)
{
    struct error err = { 0 };
    cJSON *tree = NULL;
    double value;

    if (json_parse(&tree, json, strlen(json), flags, &err))
        fail_msg("%s: %s", json, err.text);
    assert_true(cJSON_IsNumber(tree));
    value = tree->valuedouble;
    cJSON_Delete(tree);
    return value;
}

static void test_json__python_numbers(void **state)
{
    static const char *const bad[] = { "nan", "Inf", "-NaN", "+Infinity", "Infinityx", "NaN NaN" };
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct error err = { 0 };

        assert_int_equal(json_check(bad[i], strlen(bad[i]), JSON_PYTHON, &err), ERR_FORMAT);
    }
    assert_true(isnan(parse_number("NaN", JSON_PYTHON)));
    assert_true(parse_number("Infinity", JSON_PYTHON) == (double)INFINITY);
    assert_true(parse_number("-Infinity", JSON_PYTHON) == (double)-INFINITY);
}

static void test_json__extreme_numbers(void **state)
{
    char many[400];
    (void)state;

    assert_true(parse_number("1e999", 0) == (double)INFINITY);
    assert_true(parse_number("-1e999", 0) == (double)-INFINITY);
    assert_true(parse_number("1e-999", 0) == 0);
    assert_true(parse_number("5e-324", 0) > 0);
    memset(many, '3', sizeof(many));
    memcpy(many, "0.", 2);
    many[sizeof(many) - 1] = '\0';
    assert_true(fabs(parse_number(many, 0) - 1.0 / 3) < 1e-15);
}

/* The decimal point of the host program's locale must not matter. */
static void test_json__other_locale(void **state)
{
    (void)state;
    if (!comma_locale_enter()) {
        print_message("a locale with a decimal comma cannot be made here\n");
        skip();
    }
    assert_true(parse_number("2.5", 0) == 2.5);
    setlocale(LC_NUMERIC, "C");
}

static void test_json__tree(void **state)
{
    static const char json[] = "{\"a\":[1,\"x\",true,false,null,{\"b\":\"\"}],\"\\u00e9\":2.5}";
    struct error err = { 0 };
    cJSON *tree = NULL;
    char *printed;
    (void)state;

    assert_int_equal(json_parse(&tree, json, sizeof(json) - 1, 0, &err), 0);
    printed = cJSON_PrintUnformatted(tree);
    assert_string_equal(printed, "{\"a\":[1,\"x\",true,false,null,{\"b\":\"\"}],\"\xc3\xa9\":2.5}");
    cJSON_free(printed);
    cJSON_Delete(tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json__refuses_bad_text),
        cmocka_unit_test(test_json__accepts_good_text),
        cmocka_unit_test(test_json__limits_depth),
        cmocka_unit_test(test_json__limits_values),
        cmocka_unit_test(test_json__limits_bytes),
        cmocka_unit_test(test_json__finds_a_duplicate_among_many),
        cmocka_unit_test(test_json__tokens),
        cmocka_unit_test(test_json__skip),
        cmocka_unit_test(test_json__decodes_strings),
        cmocka_unit_test(test_json__whole_numbers),
        cmocka_unit_test(test_json__python_numbers),
        cmocka_unit_test(test_json__extreme_numbers),
        cmocka_unit_test(test_json__other_locale),
        cmocka_unit_test(test_json__tree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

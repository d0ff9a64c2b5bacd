#include "adapter/pattern.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *pattern;
    const char *part; /* of the sentence */
} refused[] = {
    { "a\\", "character 2: a backslash at the end" },
    { "\\1", "this escape is not admitted" },
    { "\\A", "this escape is not admitted" },
    { "\\Z", "this escape is not admitted" },
    { "\\B", "this escape is not admitted" },
    { "\\n", "this escape is not admitted" },
    { "\\x41", "this escape is not admitted" },
    { "\\u0041", "this escape is not admitted" },
    { "\\p{L}", "this escape is not admitted" },
    { "\\Qa\\E", "this escape is not admitted" },
    { "\\\xc3\xa9", "only printable ASCII" },
    { "\xc3\xa9", "character 1: only printable ASCII is admitted" },
    { "a\n", "character 2: only printable ASCII" },
    { "a\tb", "only printable ASCII" },
    { "*", "character 1: there is nothing here that can be repeated" },
    { "a|*", "character 3: there is nothing here" },
    { "(*VERB)", "character 2: there is nothing here" },
    { "(+a)", "there is nothing here" },
    { "^*", "there is nothing here" },
    { "$+", "there is nothing here" },
    { "\\b?", "there is nothing here" },
    { "(?=a)*", "there is nothing here" },
    { "a**", "there is nothing here" },
    { "a*{2}", "there is nothing here" },
    { "a???", "there is nothing here" },
    { "a*+", "possessive" },
    { "a++", "possessive" },
    { "a{2}+", "possessive" },
    { "{", "there is nothing here" },
    { "a{", "character 2: a '{' begins" },
    { "a{}", "a '{' begins" },
    { "a{,}", "a '{' begins" },
    { "a{1", "a '{' begins" },
    { "a{1,", "a '{' begins" },
    { "a{ 1}", "a '{' begins" },
    { "a{1, 2}", "a '{' begins" },
    { "a{3,1}", "a '{' begins" },
    { "a{1001}", "a '{' begins" },
    { "a{99999999999999999999}", "a '{' begins" },
    { "a{-1}", "a '{' begins" },
    { "}", "a bracket that closes nothing must be escaped" },
    { "]", "a bracket that closes nothing must be escaped" },
    { ")", "character 1: this ')' closes nothing" },
    { "a)(b", "this ')' closes nothing" },
    { "(", "character 2: a group is not closed" },
    { "(a|(b)", "a group is not closed" },
    { "(?", "of the '(?' constructs" },
    { "(?i)a", "of the '(?' constructs" },
    { "(?i:a)", "of the '(?' constructs" },
    { "(?P<x>a)", "of the '(?' constructs" },
    { "(?P=x)", "of the '(?' constructs" },
    { "(?>a)", "of the '(?' constructs" },
    { "(?|a)", "of the '(?' constructs" },
    { "(?#c)", "of the '(?' constructs" },
    { "(?<=a)b", "of the '(?' constructs" },
    { "(?<!a)b", "of the '(?' constructs" },
    { "(?(1)a)", "of the '(?' constructs" },
    { "(?R)", "of the '(?' constructs" },
    { "[", "the set is not closed" },
    { "[a", "character 1: the set is not closed" },
    { "[a-", "the set is not closed" },
    { "[a\\", "a backslash at the end" },
    { "[]", "a ']' at the start of a set must be escaped" },
    { "[]a]", "a ']' at the start of a set must be escaped" },
    { "[^]a]", "a ']' at the start of a set must be escaped" },
    { "[[:alpha:]]", "a '[' in a set must be escaped" },
    { "[a[b]", "a '[' in a set must be escaped" },
    { "[a&&b]", "two of these in a set" },
    { "[a||b]", "two of these in a set" },
    { "[a~~b]", "two of these in a set" },
    { "[--a]", "two of these in a set" },
    { "[b-a]", "character 2: this is not a range" },
    { "[\\d-a]", "this is not a range" },
    { "[a-\\d]", "this is not a range" },
    { "[a-c-e]", "a '-' in a set stands between" },
    { "[+--]", "a '-' as the end of a range" },
    { "[\\b]", "this escape is not admitted" },
    { "[\\n]", "this escape is not admitted" },
    { "[\xc3\xa9]", "only printable ASCII" },
};

static void test_pattern__refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        for (int anchor = 0; anchor < 2; anchor++) {
            struct pattern *pattern = NULL;
            struct error err = { 0 };
            int code = pattern_compile(&pattern, refused[i].pattern, strlen(refused[i].pattern),
                                       (enum pattern_anchor)anchor, &err);

            if (code != ERR_FORMAT || !strstr(err.text, refused[i].part))
                fail_msg("'%s': %d %s", refused[i].pattern, code, err.text);
            assert_null(pattern);
        }
    }
}

#define F PATTERN_FULLMATCH
#define S PATTERN_SUFFIX_KEY

static const struct {
    enum pattern_anchor anchor;
    const char *pattern;
    const char *name;
    bool matched;
} matches[] = {
    { F, "", "", true },
    { F, "", "a", false },
    { F, "q_proj", "q_proj", true },
    { F, "q_proj", "model.q_proj", false },
    { F, "q_proj", "q_proj\n", false },
    { F, "q_proj$", "q_proj\n", false },
    { F, "a|ab", "ab", true },
    { F, "(a|ab)(c|bcd)", "abcd", true },
    { F, "a*?", "aaa", true },
    { F, ".*", "a\nb", false },
    { F, ".*", "\r\v", true },
    { F, "[^a]", "\n", true },
    { F, "a{,2}b", "aab", true },
    { F, "a{,2}b", "b", true },
    { F, "a{,2}b", "aaab", false },
    { F, "a{2,}", "a", false },
    { F, "a{2}", "aa", true },
    { F, "(a*)*", "aaa", true },
    { F, "(a|)*b", "aab", true },
    { F, "(|a){3}", "aa", true },
    { F, "x(|y)", "x", true },
    { F, "\\.", ".", true },
    { F, "\\_\\-\\/\\ \\#", "_-/ #", true },
    { F, "a b#c", "a b#c", true },
    { F, "[a\\]\\^\\-.]+", "]^-.a", true },
    { F, "[a-]", "-", true },
    { F, "[-a]", "-", true },
    { F, "[\\w-]+", "a-b_0", true },
    { F, "[^\\W\\d]+", "ab_", true },
    { F, "\\bmodel\\.[\\d]{1,}\\b", "model.12", true },
    { F, "A", "a", false },
    { F, ".", "\xc3\xa9", true },
    { F, "..", "\xc3\xa9", false },
    { F, "^(?!.*vision).*(?:q_proj|v_proj)$", "model.layers.0.q_proj", true },
    { F, "^(?!.*vision).*(?:q_proj|v_proj)$", "vision.layers.0.q_proj", false },
    { F, "(?=a).*", "ab", true },
    { F, ".*decoder.*(SelfAttention|EncDecAttention).*(q|v)$", "decoder.0.SelfAttention.q", true },
    { S, "layers.0.q", "model.layers.0.q", true },
    { S, "layers.0.q", "layers.0.q", true },
    { S, "ers.0.q", "model.layers.0.q", false },
    { S, "^model.layers.0.q", "model.layers.0.q", true },
    { S, "^layers.0.q", "model.layers.0.q", false },
    { S, "q|k", "model.k", true },
    { S, "q|k", "model.xk", false },
    { S, "q", "a.q\n", true },
    { S, "q", "a.q\n\n", false },
    { S, "q", "a\nb.q", false },
    { S, "", "a.", true },
    { S, "", "", true },
    { S, "layers.0", "modelxlayers.0", false },
    { S, "layers.0.q", "layersx0.q", true },
    { S, ".*\\.q_proj", "model.layers.0.q_proj", true },
};

static void test_pattern__matches(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(matches); i++) {
        struct pattern *pattern = NULL;
        struct error err = { 0 };
        bool matched = !matches[i].matched;

        if (pattern_compile(&pattern, matches[i].pattern, strlen(matches[i].pattern),
                            matches[i].anchor, &err) ||
            pattern_match(pattern, matches[i].name, strlen(matches[i].name), &matched, &err) ||
            matched != matches[i].matched)
            fail_msg("'%s' on '%s': %d %s", matches[i].pattern, matches[i].name, matched, err.text);
        pattern_free(pattern);
    }
}

static void test_pattern__names_that_engines_read_differently(void **state)
{
    static const char *const names[] = { "\xd9\xa3", "a\x1f", "a\tb", "\xc3\xa9" };
    struct pattern *pattern = NULL;
    struct error err = { 0 };
    bool matched;

    (void)state;
    assert_int_equal(pattern_compile(&pattern, "[\\d\\s]+", 7, F, &err), 0);
    for (size_t i = 0; i < COUNT(names); i++) {
        assert_int_equal(pattern_match(pattern, names[i], strlen(names[i]), &matched, &err),
                         ERR_FORMAT);
        assert_non_null(strstr(err.text, "is not plain ASCII"));
    }
    pattern_free(pattern);

    assert_int_equal(pattern_compile(&pattern, ".*", 2, F, &err), 0);
    assert_int_equal(pattern_match(pattern, "\xff", 1, &matched, &err), ERR_FORMAT);
    assert_int_equal(pattern_match(pattern, "a\0b", 3, &matched, &err), 0);
    assert_true(matched);
    pattern_free(pattern);
}

static void test_pattern__backtracking_is_bounded(void **state)
{
    static const char *const explosive[] = { "(a|aa)*[bc]", "(a*)*[bc]", "(.*.*)*[bc]",
                                             "((a?){30}){30}[bc]" };
    char name[2048];

    (void)state;
    memset(name, 'a', sizeof(name));
    for (size_t i = 0; i < COUNT(explosive); i++) {
        struct pattern *pattern = NULL;
        struct error err = { 0 };
        bool matched = true;
        int code;

        assert_int_equal(pattern_compile(&pattern, explosive[i], strlen(explosive[i]), F, &err), 0);
        code = pattern_match(pattern, name, sizeof(name), &matched, &err);
        if (code)
            assert_non_null(strstr(err.text, "cannot be matched"));
        assert_true(code ? code == ERR_FORMAT : !matched);
        pattern_free(pattern);
    }
}

static void test_pattern__size_is_bounded(void **state)
{
    struct pattern *pattern = NULL;
    struct error err = { 0 };
    char *text = malloc(PATTERN_BYTES_MAX + 1);
    char nested[512];

    (void)state;
    assert_non_null(text);
    memset(text, 'a', PATTERN_BYTES_MAX + 1);
    assert_int_equal(pattern_compile(&pattern, text, PATTERN_BYTES_MAX + 1, F, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "over the limit of 65536"));
    free(text);

    memset(nested, '(', 101);
    memset(nested + 101, ')', 101);
    assert_int_equal(pattern_compile(&pattern, nested, 202, S, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "more than 100 deep"));
    assert_int_equal(pattern_compile(&pattern, nested + 1, 200, S, &err), 0);
    pattern_free(pattern);

    pattern = NULL;
    assert_int_equal(pattern_compile(&pattern, "((a{1000}){1000}){1000}", 23, S, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "cannot be compiled"));
    assert_null(pattern);
    assert_int_equal(pattern_compile(&pattern, "a\0b", 3, S, &err), ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pattern__refuses),
        cmocka_unit_test(test_pattern__matches),
        cmocka_unit_test(test_pattern__names_that_engines_read_differently),
        cmocka_unit_test(test_pattern__backtracking_is_bounded),
        cmocka_unit_test(test_pattern__size_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

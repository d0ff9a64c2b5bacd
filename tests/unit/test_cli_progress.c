/*
 * The progress line: what is left out when the terminal is narrow, rates, and the text helpers
 * that it uses.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "../../tools/cli_progress.c" /* NOLINT(bugprone-suspicious-include) */
#include "../../tools/cli_text.c"     /* NOLINT(bugprone-suspicious-include): no library has them */

#include <setjmp.h>
#include <stdarg.h>
/* cmocka needs the three above it */
#include <cmocka.h>

static const struct lorafold_progress third = {
    .bytes_done = UINT64_C(5353333333),
    .bytes_total = UINT64_C(16060000000),
    .seconds = 2,
    .limit = LORAFOLD_LIMIT_WRITE,
    .file = "model-00002-of-00004.safetensors",
};

static void test_cli_progress__drops_the_least_important_first(void **state)
{
    static const struct {
        unsigned columns;
        const char *line;
    } cases[] = {
        { 0, "" },
        { 4, "" },
        { 5, " 33%" },
        { 15, " 33%" },
        { 16, " 33%  3.12 GB/s" },
        { 25, " 33%  3.12 GB/s" },
        { 26, " 33%  3.12 GB/s  ETA 0:03" },
        { 46, " 33%  3.12 GB/s  ETA 0:03" },
        { 47, " 33%  5.35 GB of 16.06 GB  3.12 GB/s  ETA 0:03" },
        { 67, " 33%  5.35 GB of 16.06 GB  3.12 GB/s  limited by writing  ETA 0:03" },
        { 1000, " 33%  5.35 GB of 16.06 GB  3.12 GB/s  limited by writing  ETA 0:03  "
                "model-00002-of-00004.safetensors" },
    };
    char line[256];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cli_progress_format(line, sizeof(line), &third, 3.12e9, cases[i].columns);
        assert_string_equal(line, cases[i].line);
    }
}

static void test_cli_progress__never_reaches_the_last_column(void **state)
{
    struct lorafold_progress now = third;
    char line[256];

    (void)state;
    now.bytes_done = UINT64_MAX / 3;
    now.bytes_total = UINT64_MAX;
    now.file =
        "a\033[31m\xc3\xa9 name that is much longer than the line has room for, by a long way, "
        "and then some more of it";
    for (unsigned columns = 1; columns < 400; columns++) {
        cli_progress_format(line, sizeof(line), &now, 1, columns);
        assert_true(strlen(line) < columns);
        assert_null(strpbrk(line, "\033\xc3\xa9"));
    }
}

static void test_cli_progress__odd_numbers(void **state)
{
    struct lorafold_progress now = { 0 };
    char line[256];

    (void)state;
    cli_progress_format(line, sizeof(line), &now, 0, 80);
    assert_string_equal(line, "100%  0 bytes of 0 bytes  0.00 GB/s  limited by reading  ETA --:--");
    now.bytes_done = 9;
    now.bytes_total = 3; /* more than there is */
    cli_progress_format(line, sizeof(line), &now, 1, 24);
    assert_string_equal(line, "100%  0.00 GB/s");
    now.bytes_done = 0;
    now.bytes_total = UINT64_C(14768);
    cli_progress_format(line, sizeof(line), &now, 2, 40);
    assert_string_equal(line, "  0%  0.00 GB/s  ETA 2:03:04");
}

static void test_cli_progress__rate_follows_and_survives_a_standing_clock(void **state)
{
    struct cli_progress progress = { 0 };
    struct lorafold_progress now = { .bytes_total = UINT64_C(1) << 40 };
    double rate = 0;

    (void)state;
    assert_true(cli_progress_rate(&progress, &now) == 0);
    for (int i = 1; i <= 100; i++) {
        now.seconds = 0.1 * i;
        now.bytes_done = UINT64_C(100000000) * (uint64_t)i;
        rate = cli_progress_rate(&progress, &now);
        assert_true(rate > 0.99e9 && rate < 1.01e9);
    }
    assert_true(cli_progress_rate(&progress, &now) == rate);
    now.bytes_done = 1;
    now.seconds += 1;
    assert_true(cli_progress_rate(&progress, &now) == rate); /* bytes never go back */
    now.seconds += 20;
    now.bytes_done = UINT64_C(10000000000);
    assert_true(cli_progress_rate(&progress, &now) < 0.2e9);
}

/* The bytes of the preparation are others, and so is its rate. */
static void test_cli_progress__preparing(void **state)
{
    struct cli_progress progress = { 0 };
    struct lorafold_progress now = { .bytes_done = UINT64_C(500000000),
                                     .bytes_total = UINT64_C(1000000000),
                                     .seconds = 5,
                                     .limit = LORAFOLD_LIMIT_PREPARE,
                                     .file = "" };
    char line[256];
    double rate;

    (void)state;
    rate = cli_progress_rate(&progress, &now);
    assert_true(rate > 0.099e9 && rate < 0.101e9);
    cli_progress_format(line, sizeof(line), &now, rate, 80);
    assert_string_equal(line, " 50%  500.0 MB of 1.00 GB  0.10 GB/s  preparing  ETA 0:05");
    now.bytes_done = UINT64_C(100000000);
    now.bytes_total = UINT64_C(9000000000);
    now.seconds = 10;
    now.limit = LORAFOLD_LIMIT_READ;
    assert_true(cli_progress_rate(&progress, &now) == 0);
    now.bytes_done = UINT64_C(1100000000);
    now.seconds = 11;
    rate = cli_progress_rate(&progress, &now);
    assert_true(rate > 0.99e9 && rate < 1.01e9);
}

static void test_cli_progress__silent_when_not_enabled(void **state)
{
    struct cli_progress progress;

    (void)state;
    cli_progress_init(&progress, false);
    cli_progress_show(&progress, &third);
    cli_progress_say(&progress, "nothing");
    assert_false(progress.visible);
}

static void test_cli_text__bytes(void **state)
{
    static const struct {
        double bytes;
        const char *text;
    } cases[] = { { 0, "0 bytes" },      { 999, "999 bytes" },    { 1000, "1.00 kB" },
                  { 99994, "99.99 kB" }, { 99996, "100.0 kB" },   { 999949, "999.9 kB" },
                  { 999950, "1.00 MB" }, { 16.06e9, "16.06 GB" }, { 1.8446744e19, "18.45 EB" } };
    char buf[24];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(cli_format_bytes(buf, sizeof(buf), cases[i].bytes), cases[i].text);
}

static void test_cli_text__quote_is_safe(void **state)
{
    static const struct {
        const char *text;
        const char *quoted;
    } cases[] = {
        { "", "" },
        { "caf\xc3\xa9 \xf0\x9f\x98\x80", "caf\xc3\xa9 \xf0\x9f\x98\x80" },
        { "\x1b[31m\n\x7f", "\\x1b[31m\\x0a\\x7f" },
        { "\xc2\x9b"
          "31m",
          "\\xc2\\x9b31m" },                      /* a control sequence in one character */
        { "\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80", /* overlong, surrogate, past the end */
          "\\xc0\\xaf\\xed\\xa0\\x80\\xf4\\x90\\x80\\x80" },
        { "\xe2\x82", "\\xe2\\x82" }, /* cut short */
    };
    char buf[CLI_QUOTED_BYTES];
    char small[12];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(cli_quote(buf, sizeof(buf), cases[i].text), cases[i].quoted);
    assert_string_equal(cli_quote(small, sizeof(small), "12345678"), "12345678");
    assert_string_equal(cli_quote(small, sizeof(small), "1234567890abc"), "12345678...");
    assert_string_equal(cli_quote(small, sizeof(small), "1234567\xc3\xa9\xc3\xa9\xc3\xa9"),
                        "1234567...");
}

static const char *nearest_of_three(const char *typed)
{
    static const char *const names[] = { "output", "overwrite", "tensors" };
    size_t distance = cli_nearest_limit(typed);
    const char *nearest = NULL;

    for (size_t i = 0; i < 3; i++)
        if (cli_nearer(names[i], typed, &distance))
            nearest = names[i];
    return nearest;
}

static void test_cli_text__nearest(void **state)
{
    char endless[300];

    (void)state;
    assert_string_equal(nearest_of_three("ouput"), "output");
    assert_string_equal(nearest_of_three("uotput"), "output");
    assert_string_equal(nearest_of_three("over"), "overwrite");
    assert_string_equal(nearest_of_three("over_write"), "overwrite");
    assert_null(nearest_of_three("xyzzy"));
    assert_null(nearest_of_three(""));
    memset(endless, 'o', sizeof(endless) - 1);
    endless[sizeof(endless) - 1] = '\0';
    assert_null(nearest_of_three(endless));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cli_progress__drops_the_least_important_first),
        cmocka_unit_test(test_cli_progress__never_reaches_the_last_column),
        cmocka_unit_test(test_cli_progress__odd_numbers),
        cmocka_unit_test(test_cli_progress__rate_follows_and_survives_a_standing_clock),
        cmocka_unit_test(test_cli_progress__preparing),
        cmocka_unit_test(test_cli_progress__silent_when_not_enabled),
        cmocka_unit_test(test_cli_text__bytes),
        cmocka_unit_test(test_cli_text__quote_is_safe),
        cmocka_unit_test(test_cli_text__nearest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

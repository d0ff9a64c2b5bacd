#include "merge.h"

#include "comma_locale.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define EMPTY_FILE "99aa06d3014798d86001c324468d497f" /* XXH3-128 of nothing */

/* A manifest of one file "a" with the given fields, and its blocks. */
static int read_manifest(const char *fields, const char *blocks, struct error *err)
{
    struct output_files files = { 0 };
    char json[1024];
    int code;

    snprintf(json, sizeof(json), "{\"format\": 1, \"block_bytes\": 4194304, \"files\": [%s]}",
             fields);
    code = manifest_read(&files, json, strlen(json), blocks, strlen(blocks), err);
    output_files_release(&files);
    return code;
}

static void test_manifest__refuses(void **state)
{
    static const struct {
        const char *fields;
        const char *blocks;
        const char *sentence;
    } cases[] = {
        { "", "", "lists no files" },
        { "1", "", "name is missing" },
        { "{\"name\": \"../a\", \"bytes\": 0, \"xxh3_128\": \"" EMPTY_FILE "\"}", "# ../a\n",
          "leaves the directory" },
        { "{\"name\": \"/a\", \"bytes\": 0, \"xxh3_128\": \"" EMPTY_FILE "\"}", "# /a\n",
          "leaves the directory" },
        { "{\"name\": \"a\", \"bytes\": -1, \"xxh3_128\": \"" EMPTY_FILE "\"}", "# a\n", "size" },
        { "{\"name\": \"a\", \"bytes\": 1e30, \"xxh3_128\": \"" EMPTY_FILE "\"}", "# a\n", "size" },
        { "{\"name\": \"a\", \"bytes\": 0.5, \"xxh3_128\": \"" EMPTY_FILE "\"}", "# a\n", "size" },
        { "{\"name\": \"a\", \"bytes\": 0, \"xxh3_128\": \"12\"}", "# a\n", "digest" },
        { "{\"name\": \"a\", \"bytes\": 0, \"xxh3_128\": 5}", "# a\n", "digest" },
        { "{\"name\": \"a\", \"bytes\": 1000000000000000, \"xxh3_128\": \"" EMPTY_FILE "\"}",
          "# a\n", "too short" },
        { "{\"name\": \"a\", \"bytes\": 0, \"xxh3_128\": \"" EMPTY_FILE "\"}", "", "no blocks" },
        { "{\"name\": \"a\", \"bytes\": 0, \"xxh3_128\": \"" EMPTY_FILE "\"}", "# b\n",
          "no blocks" },
        { "{\"name\": \"a\", \"bytes\": 0, \"xxh3_128\": \"" EMPTY_FILE "\"}", "# a\nx",
          "goes on" },
        { "{\"name\": \"a\", \"bytes\": 0, \"xxh3_128\": \"00000000000000000000000000000000\"}",
          "# a\n", "disagree" },
        { "{\"name\": \"a\", \"bytes\": 1, \"xxh3_128\": \"" EMPTY_FILE "\"}",
          "# a\n0000000000000000000000000000000g\n", "block 0" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = { 0 };

        assert_int_equal(read_manifest(cases[i].fields, cases[i].blocks, &err), ERR_FORMAT);
        if (!strstr(err.text, cases[i].sentence))
            fail_msg("case %zu: '%s' lacks '%s'", i, err.text, cases[i].sentence);
    }
}

static void test_manifest__reads_an_empty_file(void **state)
{
    struct error err = { 0 };

    (void)state;
    assert_int_equal(read_manifest("{\"name\": \"a\", \"bytes\": 0, \"xxh3_128\": \"" EMPTY_FILE
                                   "\"}",
                                   "# a\n", &err),
                     0);
}

#define BLOCK PLAN_BLOCK_BYTES

/*
 * A file of four blocks and a byte, whose blocks with a digest are `lines`, from a base of one
 * shard that is as large.
 */
static int read_cloned(struct output_files *out, const char *cloned, size_t lines,
                       struct error *err)
{
    const struct digest zeros[5] = { 0 };
    struct text json = { 0 };
    struct text blocks = { 0 };
    int code;

    text_addf(&json,
              "{\"format\": 1, \"block_bytes\": %d, \"base\": {\"name\": \"b\", \"shards\": "
              "[{\"name\": \"s\", \"bytes\": %d, \"header_xxh3_128\": \"" EMPTY_FILE
              "\"}]}, \"files\": [{\"name\": \"a\", \"bytes\": %d, \"xxh3_128\": \"",
              (int)BLOCK, (int)(4 * BLOCK + 1), (int)(4 * BLOCK + 1));
    text_add_digest(&json, digest_of_blocks(zeros, lines));
    text_addf(&json, "\", \"cloned\": %s}]}", cloned);
    text_adds(&blocks, "# a\n");
    for (size_t i = 0; i < lines; i++) {
        text_add_digest(&blocks, zeros[i]);
        text_adds(&blocks, "\n");
    }
    *err = (struct error){ 0 };
    code = manifest_read(out, json.data, json.bytes, blocks.data, blocks.bytes, err);
    text_release(&json);
    text_release(&blocks);
    return code;
}

#define RUN(offset, bytes, shard, at)                                                              \
    "{\"offset\": " #offset ", \"bytes\": " #bytes ", \"shard\": " #shard                          \
    ", \"shard_offset\": " #at "}"

static void test_manifest__clones(void **state)
{
    /* Blocks 1, and 3 with the byte behind it. */
    const char *runs = "[" RUN(4194304, 4194304, 0, 0) ", " RUN(12582912, 4194305, 0, 12582912) "]";
    const bool expected[] = { false, true, false, true, true };
    const uint64_t digests[] = { 0, 0, 1, 0, 0 };
    struct output_files files = { 0 };
    struct error err;

    (void)state;
    assert_int_equal(read_cloned(&files, runs, 2, &err), 0);
    assert_int_equal(files.list[0].clone_count, 2);
    assert_int_equal(files.list[0].block_count, 2);
    assert_string_equal(files.shards[0].name, "s");
    for (uint64_t i = 0; i < 5; i++) {
        uint64_t digest;
        const struct output_clone *clone = output_block(&files.list[0], i, &digest);

        assert_int_equal(clone != NULL, expected[i]);
        if (!clone)
            assert_int_equal(digest, digests[i]);
        else
            assert_ptr_equal(clone, &files.list[0].clones[i == 1 ? 0 : 1]);
    }
    output_files_release(&files);
}

static void test_manifest__refuses_clones(void **state)
{
    static const char *const cases[] = {
        "[]",
        "{}",
        "[1]",
        "[" RUN(4194305, 4194304, 0, 0) "]",                                  /* no block */
        "[" RUN(4194304, 4194303, 0, 0) "]",                                  /* cut */
        "[" RUN(4194304, 0, 0, 0) "]",                                        /* empty */
        "[" RUN(-4194304, 4194304, 0, 0) "]",                                 /* no size */
        "[" RUN(20971520, 4194304, 0, 0) "]",                                 /* behind it */
        "[" RUN(12582912, 8388608, 0, 0) "]",                                 /* past its end */
        "[" RUN(4194304, 4194304, 1, 0) "]",                                  /* which shard? */
        "[" RUN(4194304, 4194304, 0, 5) "]",                                  /* no page */
        "[" RUN(4194304, 4194304, 0, 16777216) "]",                           /* past its end */
        "[" RUN(4194304, 4194304, 0, 9007199254738944) "]",                   /* far */
        "[" RUN(8388608, 4194304, 0, 0) ", " RUN(4194304, 4194304, 0, 0) "]", /* back */
        "[" RUN(4194304, 8388608, 0, 0) ", " RUN(8388608, 4194304, 0, 0) "]", /* twice */
        "[{\"offset\": 4194304, \"bytes\": 4194304, \"shard_offset\": 0}]",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct output_files files = { 0 };
        struct error err;

        assert_int_equal(read_cloned(&files, cases[i], 4, &err), ERR_FORMAT);
        if (!strstr(err.text, "cloned into 'a'"))
            fail_msg("case %zu: %s", i, err.text);
    }
}

/* There is a digest for every other block, and no more. */
static void test_manifest__clones_and_lines(void **state)
{
    const char *run = "[" RUN(4194304, 4194304, 0, 0) "]";
    struct output_files files = { 0 };
    struct error err;

    (void)state;
    assert_int_equal(read_cloned(&files, run, 3, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "too short"));
    assert_int_equal(read_cloned(&files, run, 5, &err), ERR_FORMAT);
    assert_int_equal(read_cloned(&files, run, 4, &err), 0);
    output_files_release(&files);
}

static void test_manifest__another_format(void **state)
{
    struct output_files files = { 0 };
    struct error err = { 0 };
    const char *json = "{\"format\": 2, \"block_bytes\": 4194304, \"files\": []}";

    (void)state;
    assert_int_equal(manifest_read(&files, json, strlen(json), "", 0, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "another version"));
}

static void test_size__parses_as_people_write(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes; /* 0: refused */
    } cases[] = {
        { "5GB", 5000000000 },
        { "200MB", 200000000 },
        { "5 gb", 5000000000 },
        { "1.5GB", 1500000000 },
        { "128MiB", 134217728 },
        { "1GiB", 1073741824 },
        { "4096", 4096 },
        { "1kb", 1000 },
        { "7B", 7 },
        { "", 0 },
        { "GB", 0 },
        { "-5GB", 0 },
        { "5GBs", 0 },
        { "0", 0 },
        { "0.2B", 0 },
        { "1e3", 0 },
        { "0x10", 0 },
        { "nan", 0 },
        { "inf", 0 },
        { "5.GB", 0 },
        { "99999999999999999999", 0 },
        { "99999999TB", 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 0;
        bool parsed = lorafold_parse_size(cases[i].text, &bytes);

        if (parsed != (cases[i].bytes != 0) || bytes != cases[i].bytes)
            fail_msg("'%s' gives %d, %llu", cases[i].text, parsed, (unsigned long long)bytes);
    }
}

/* What a host program has set must not matter, here and in all that it reads or writes as text. */
static void test_size__other_locale(void **state)
{
    uint64_t bytes = 0;
    struct text text = { 0 };

    (void)state;
    if (!comma_locale_enter()) {
        print_message("a locale with a decimal comma cannot be made here\n");
        skip();
    }
    assert_true(lorafold_parse_size("1.5GB", &bytes));
    assert_int_equal(bytes, 1500000000);
    assert_false(lorafold_parse_size("1,5GB", &bytes));
    text_addf(&text, "%.1f", 0.5);
    assert_string_equal(text.data, "0.5");
    text_release(&text);
    setlocale(LC_NUMERIC, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manifest__refuses),
        cmocka_unit_test(test_manifest__reads_an_empty_file),
        cmocka_unit_test(test_manifest__clones),
        cmocka_unit_test(test_manifest__refuses_clones),
        cmocka_unit_test(test_manifest__clones_and_lines),
        cmocka_unit_test(test_manifest__another_format),
        cmocka_unit_test(test_size__parses_as_people_write),
        cmocka_unit_test(test_size__other_locale),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

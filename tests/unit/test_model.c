#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "format/model.h"
#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LITERAL(string) string, sizeof(string) - 1

static char base[64];

static void path_of(char path[256], const char *name)
{
    snprintf(path, 256, "%s/%s", base, name);
}

static void write_text(const char *name, const char *text, size_t bytes)
{
    char path[256];

    path_of(path, name);
    temp_write(path, text, bytes);
}

/* A shard with a U8 tensor of one element for every letter of `names`. */
static void write_shard(const char *name, const char *names)
{
    struct text file = { 0 };
    struct text json = { 0 };
    uint8_t prefix[8];

    st_emit_begin(&json, NULL, 0);
    for (size_t i = 0; names[i]; i++) {
        uint64_t shape = 1;

        st_emit_tensor(&json, names + i, 1, DTYPE_U8, &shape, 1, i, 1);
    }
    st_emit_end(&json, 0, 8);
    store_le64(prefix, json.bytes);
    text_add(&file, (const char *)prefix, sizeof(prefix));
    text_add(&file, json.data, json.bytes);
    text_adds(&file, names); /* as good as any data */
    write_text(name, file.data, file.bytes);
    text_release(&json);
    text_release(&file);
}

/* "a:one b:two" becomes an index that places a in one and b in two. */
static void write_index(const char *map)
{
    struct text json = { 0 };
    char word[64];
    int step;

    text_adds(&json, "{\"weight_map\":{");
    for (const char *p = map; sscanf(p, " %63s%n", word, &step) == 1; p += step)
        text_addf(&json, "%s\"%c\":\"%s\"", p == map ? "" : ",", word[0], word + 2);
    text_adds(&json, "}}");
    write_text("model.safetensors.index.json", json.data, json.bytes);
    text_release(&json);
}

static void make_link(const char *target, const char *name)
{
    char path[256];

    path_of(path, name);
    assert_int_equal(symlink(target, path), 0);
}

static void make_directory(const char *name)
{
    char path[256];

    path_of(path, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

/* Every test works in a directory of its own. */
static int set_up(void **state)
{
    scratch_make(state);
    snprintf(base, sizeof(base), "%s", in_scratch("base"));
    return mkdir(base, 0700);
}

static void refuses(const char *name, int code, const char *part)
{
    struct model model = { 0 };
    struct error err = { 0 };
    char path[256];

    path_of(path, name);
    if (model_open(&model, path, NULL, &err) != code || !strstr(err.text, part))
        fail_msg("'%s': %d '%s', wanted %d '%s'", path, err.code, err.text, code, part);
    assert_int_equal(err.code, code);
    assert_null(model.shards);
}

struct sayings {
    int warnings;
    int details;
    char last[256];
};

static void listen(void *context, enum log_level level, const char *sentence)
{
    struct sayings *sayings = context;

    sayings->warnings += level == LOG_WARNING;
    sayings->details += level == LOG_DETAIL;
    snprintf(sayings->last, sizeof(sayings->last), "%s", sentence);
}

static struct sayings said;

static struct model opens(const char *name)
{
    struct log log = { listen, &said };
    struct model model = { 0 };
    struct error err = { 0 };
    char path[256];

    said = (struct sayings){ 0 };
    path_of(path, name);
    if (model_open(&model, path, &log, &err))
        fail_msg("'%s': %s", path, err.text);
    return model;
}

static void test_model__refuses_what_is_not_there(void **state)
{
    (void)state;
    refuses("absent", ERR_USAGE, "/base/absent'");
    refuses("absent/", ERR_USAGE, "/base/absent/'");
    refuses("absent.bin", ERR_USAGE, "/base/absent.bin'");
    make_link("gone", "dangling");
    refuses("dangling", ERR_FORMAT, "/base/dangling'");
    make_link("loop", "loop");
    refuses("loop", ERR_FORMAT, "/base/loop'");
    write_text("file", "x", 1);
    refuses("file/inside", ERR_USAGE, "/base/file/inside'");
}

static void test_model__refuses_other_directories(void **state)
{
    static const struct {
        const char *files[3];
        const char *part;
    } cases[] = {
        { { NULL }, "has no weights: neither model.safetensors nor" },
        { { "config.json" }, "has no weights" },
        { { ".hidden.safetensors" }, "has no weights" },
        { { "adapter_config.json" }, "is an adapter, not a base model" },
        { { "adapter_config.json", "adapter_model.safetensors" }, "is an adapter" },
        { { "adapter_model.bin" }, "is an adapter" },
        { { "pytorch_model.bin", "config.json" },
          "as pickles ('pytorch_model.bin'), which are not read; load the model" },
        { { "x.pth" }, "as pickles ('x.pth')" },
        { { "model.gguf" }, "as GGUF ('model.gguf')" },
        { { "consolidated.safetensors" }, "has only 'consolidated.safetensors'" },
        { { "consolidated.00.pth" }, "has only 'consolidated.00.pth'" },
        { { "b.safetensors", "a.safetensors" },
          "has 2 safetensors files ('a.safetensors', 'b.safetensors'), but neither" },
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        for (size_t j = 0; j < 3 && cases[i].files[j]; j++)
            write_text(cases[i].files[j], "x", 1);
        refuses("", ERR_FORMAT, cases[i].part);
        for (size_t j = 0; j < 3 && cases[i].files[j]; j++) {
            char path[256];

            path_of(path, cases[i].files[j]);
            unlink(path);
        }
    }
}

static void test_model__refuses_other_files(void **state)
{
    static const struct {
        const char *name;
        const char *part;
    } cases[] = {
        { "pytorch_model.bin", "is a pickle, which is not read; load the model" },
        { "x.pt", "is a pickle" },
        { "x.gguf", "is GGUF, which is not read" },
        { "adapter_model.safetensors", "is an adapter, not a base model" },
        { "model.safetensors.index.json", "give the directory that it lies in" },
        { "model.safetensors", "1 bytes are too few" },
        { "whatever", "1 bytes are too few" },
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_text(cases[i].name, "x", 1);
        refuses(cases[i].name, ERR_FORMAT, cases[i].part);
    }
}

static void test_model__refuses_damaged_shards(void **state)
{
    char path[256];
    (void)state;

    write_text("model.safetensors", LITERAL("\2\0\0\0\0\0\0\0{}"));
    refuses("", ERR_FORMAT, "has 0 tensors");
    write_text("model.safetensors", LITERAL("\2\0\0\0\0\0\0\0{}x"));
    refuses("", ERR_FORMAT, "/base/model.safetensors': 1 bytes behind the last tensor");
    path_of(path, "model.safetensors");
    unlink(path);
    make_directory("model.safetensors");
    refuses("", ERR_FORMAT, "/base/model.safetensors'");
    rmdir(path);
    make_link("gone", "model.safetensors");
    refuses("", ERR_FORMAT, "/base/model.safetensors'");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    refuses("", ERR_FORMAT, "/base/model.safetensors'");
    refuses("model.safetensors", ERR_FORMAT, "/base/model.safetensors'");
}

static void test_model__refuses_index_and_shards_that_differ(void **state)
{
    static const struct {
        const char *map;
        const char *part;
    } cases[] = {
        { "a:one b:one c:two d:three", "names 3 shards, but 1 of them are not there, the first "
                                       "is 'three'" },
        { "a:one b:one c:two e:four d:three", "but 2 of them are not there, the first is 'four'" },
        { "a:one b:one c:one d:two",
          "tensor 'c', shard 'two': the shard holds the tensor, but the index places it in" },
        { "a:one b:one c:two d:two e:two",
          "tensor 'e', shard 'two': the index places the tensor there, but the shard does not" },
        { "0:one a:one b:one c:two d:two", "tensor '0', shard 'one': the index places" },
        { "a:one b:one c:two",
          "tensor 'd', shard 'two': the shard holds the tensor, but the index does not name it" },
        { "b:one c:two d:two", "tensor 'a', shard 'one': the shard holds" },
        { "a:one b:one c:two d:two a:two", "index.json': weight_map names tensor 'a' twice" },
        { "a:../base/one", "index.json': weight_map, tensor 'a': its shard '../base/one'" },
        { "a:one b:one c:two d:two x:same", "tensor 'a' is in two shards" },
        { "a:one b:one c:gone", "/base/gone'" },
        { "a:one b:one c:loop", "/base/loop'" },
        { "a:one b:one c:folder", "/base/folder'" },
        { "a:one b:one c:broken", "/base/broken': 1 bytes are too few" },
    };
    (void)state;

    write_shard("one", "ab");
    write_shard("two", "cd");
    make_link("one", "same");
    make_link("nowhere", "gone");
    make_link("loop", "loop");
    make_directory("folder");
    write_text("broken", "x", 1);
    for (size_t i = 0; i < COUNT(cases); i++) {
        write_index(cases[i].map);
        refuses("", ERR_FORMAT, cases[i].part);
    }
}

static void test_model__refuses_an_index_that_is_no_file(void **state)
{
    (void)state;
    write_shard("model.safetensors", "a");
    make_link("gone", "model.safetensors.index.json");
    refuses("", ERR_FORMAT, "/base/model.safetensors.index.json'");
}

static void assert_found(const struct model *model, char name, const char *shard)
{
    struct model_ref ref;

    if (!shard) {
        assert_false(model_find(model, &name, 1, &ref));
        return;
    }
    assert_true(model_find(model, &name, 1, &ref));
    assert_string_equal(model->shards[ref.shard].name, shard);
    assert_int_equal(st_name(model_header(model, ref), model_tensor(model, ref))[0], name);
}

static void test_model__opens_shards_by_index(void **state)
{
    struct model model;
    struct model_ref ref;
    (void)state;

    write_shard("two", "zc");
    write_shard("one", "yb");
    write_shard("model-stale.safetensors", "ab");
    write_text("pytorch_model.bin", "x", 1);
    write_text("consolidated.00.pth", "x", 1);
    write_text("old.gguf", "x", 1);
    write_text("tokenizer.json", "x", 1);
    write_index("z:two y:one c:two b:one");
    model = opens("");
    assert_string_equal(model.directory + strlen(model.directory) - 6, "/base/");
    assert_true(model.has_index);
    assert_int_equal(model.shard_count, 2);
    assert_string_equal(model.shards[0].name, "one");
    assert_string_equal(model.shards[1].name, "two");
    assert_int_equal(model.tensor_count, 4);
    assert_true(model.data_bytes == 4);
    assert_found(&model, 'z', "two");
    assert_found(&model, 'y', "one");
    assert_found(&model, 'b', "one");
    assert_found(&model, 'a', NULL);
    assert_false(model_find(&model, "", 0, &ref));
    assert_false(model_find(&model, "zz", 2, &ref));
    assert_true(model.shards[0].identity.inode && model.shards[0].header_digest[0]);
    assert_int_equal(model.ignored_count, 4);
    assert_string_equal(model.ignored[0], "consolidated.00.pth");
    assert_string_equal(model.ignored[1], "model-stale.safetensors");
    assert_string_equal(model.ignored[2], "old.gguf");
    assert_string_equal(model.ignored[3], "pytorch_model.bin");
    assert_int_equal(said.details, 4);
    assert_int_equal(said.warnings, 0);
    model_release(&model);
    model_release(&model);
}

static void test_model__warns_of_index_beside_model(void **state)
{
    struct model model;
    (void)state;

    write_shard("one", "a");
    write_shard("model.safetensors", "b");
    write_index("a:one");
    model = opens("");
    assert_found(&model, 'a', "one");
    assert_int_equal(said.warnings, 1);
    assert_non_null(strstr(said.last, "the index is followed"));
    model_release(&model);
    write_index("b:model.safetensors");
    model = opens("");
    assert_int_equal(said.warnings, 0);
    model_release(&model);
}

static void test_model__opens_one_file_of_a_directory(void **state)
{
    struct model model;
    (void)state;

    write_shard("weights.safetensors", "ab");
    write_shard("adapter_model.safetensors", "c");
    write_shard("consolidated.safetensors", "d");
    model = opens("");
    assert_false(model.has_index);
    assert_string_equal(model.shards[0].name, "weights.safetensors");
    assert_int_equal(model.ignored_count, 2);
    model_release(&model);

    write_shard("model.safetensors", "xyz"); /* now the rest does not matter */
    model = opens("");
    assert_string_equal(model.shards[0].name, "model.safetensors");
    assert_int_equal(model.tensor_count, 3);
    assert_int_equal(model.ignored_count, 3);
    model_release(&model);
}

static void test_model__opens_a_single_file(void **state)
{
    struct model model;
    (void)state;

    write_shard("x.safetensors", "ab");
    write_shard("y.safetensors", "c");
    model = opens("x.safetensors");
    assert_null(model.directory);
    assert_int_equal(model.ignored_count, 0);
    assert_found(&model, 'b', "x.safetensors");
    model_release(&model);

    write_text("config.json", "{}", 2);
    model = opens("x.safetensors");
    assert_string_equal(model.directory + strlen(model.directory) - 6, "/base/");
    assert_int_equal(model.ignored_count, 1);
    assert_string_equal(model.ignored[0], "y.safetensors");
    model_release(&model);
}

/* A path without a directory lies in the working directory. */
static void test_model__opens_a_bare_name(void **state)
{
    struct model model = { 0 };
    struct error err = { 0 };
    char before[4096];
    (void)state;

    write_shard("x.safetensors", "ab");
    write_text("config.json", "{}", 2);
    assert_non_null(getcwd(before, sizeof(before)));
    assert_int_equal(chdir(base), 0);
    assert_int_equal(model_open(&model, "x.safetensors", NULL, &err), 0);
    assert_string_equal(model.directory, ".");
    model_release(&model);
    assert_int_equal(chdir(before), 0);
}

/* The cache of huggingface_hub: every file of a snapshot is a link to a blob. */
static void test_model__follows_links(void **state)
{
    struct model model;
    (void)state;

    make_directory("blobs");
    make_directory("snapshot");
    write_shard("blobs/0123", "ab");
    write_shard("blobs/4567", "cd");
    write_index("a:one b:one c:two d:two");
    make_link("../blobs/0123", "snapshot/one");
    make_link("../blobs/4567", "snapshot/two");
    make_link("../model.safetensors.index.json", "snapshot/model.safetensors.index.json");
    make_link("snapshot", "link");
    model = opens("link");
    assert_int_equal(model.shard_count, 2);
    assert_found(&model, 'd', "two");
    model_release(&model);
    model = opens("blobs/0123");
    assert_int_equal(model.tensor_count, 2);
    model_release(&model);
}

static void test_model__knows_safe_names(void **state)
{
    static const struct {
        const char *name;
        size_t bytes;
        bool safe;
    } cases[] = {
        { LITERAL(""), false },        { LITERAL("."), false },
        { LITERAL(".."), false },      { LITERAL("/"), false },
        { LITERAL("/a"), false },      { LITERAL("a/"), false },
        { LITERAL("a//b"), false },    { LITERAL("a/./b"), false },
        { LITERAL("a/../b"), false },  { LITERAL("../a"), false },
        { LITERAL("a/.."), false },    { LITERAL("a\\b"), false },
        { LITERAL("a\0b"), false },    { LITERAL("a\nb"), false },
        { LITERAL("a\x7f"), false },   { LITERAL("a"), true },
        { LITERAL("..."), true },      { LITERAL("..a"), true },
        { LITERAL(".a"), true },       { LITERAL("a/b.safetensors"), true },
        { LITERAL("\xc3\xa9"), true }, { LITERAL("model-00001-of-00002.safetensors"), true },
    };
    char longest[5000];
    (void)state;

    for (size_t i = 0; i < COUNT(cases); i++) {
        if (model_name_is_safe(cases[i].name, cases[i].bytes) != cases[i].safe)
            fail_msg("'%s'", cases[i].name);
    }
    memset(longest, 'x', sizeof(longest));
    assert_true(model_name_is_safe(longest, 255));
    assert_false(model_name_is_safe(longest, 256));
    for (size_t i = 1; i < sizeof(longest); i += 2)
        longest[i] = '/';
    assert_true(model_name_is_safe(longest, 4095));
    assert_false(model_name_is_safe(longest, 4097));
}

/* A model in memory, for the search of near names. */
static struct model model_of(struct model_shard *shard, struct model_ref *refs,
                             const char *const *names, size_t count)
{
    struct text json = { 0 };
    struct error err = { 0 };

    *shard = (struct model_shard){ 0 };
    st_emit_begin(&json, NULL, 0);
    for (size_t i = 0; i < count; i++) {
        uint64_t shape = 1;

        st_emit_tensor(&json, names[i], strlen(names[i]), DTYPE_U8, &shape, 1, i, 1);
        refs[i] = (struct model_ref){ 0, (uint32_t)i };
    }
    st_emit_end(&json, 0, 8);
    assert_int_equal(st_header_parse(&shard->header, json.data, json.bytes, count, &err), 0);
    text_release(&json);
    return (
        struct model){ .shards = shard, .shard_count = 1, .tensor_count = count, .by_name = refs };
}

static void test_model__nearest_names(void **state)
{
    static const char *const names[] = {
        "lm_head.weight",
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.1.mlp.gate_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.10.mlp.up_proj.weight",
        "model.layers.2.mlp.up_proj.weight",
    };
    static const struct {
        const char *name;
        size_t count;
        const char *nearest[3];
    } cases[] = {
        { "completely.different.thing", 3, { NULL } },
        { "", 3, { NULL } },
        { "lm_head.weight", 1, { "lm_head.weight" } },
        { "lm_haed.weight", 3, { "lm_head.weight" } },
        { "layers.10.mlp.up_proj.weight", 1, { "model.layers.10.mlp.up_proj.weight" } },
        { "model.layers.3.mlp.up_proj.weight",
          3,
          { "model.layers.1.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight",
            "model.layers.10.mlp.up_proj.weight" } },
        { "model.layers.10.mlp.upproj.weight",
          2,
          { "model.layers.10.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight" } },
        { "x", 0, { NULL } },
    };
    struct model_ref refs[COUNT(names)];
    struct model_shard shard;
    struct model model = model_of(&shard, refs, names, COUNT(names));
    (void)state;

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct model_ref nearest[3];
        size_t found = model_nearest(&model, cases[i].name, nearest, cases[i].count);

        for (size_t j = 0; j < cases[i].count && (j < found || cases[i].nearest[j]); j++) {
            const char *name = j < found ? st_name(&shard.header, model_tensor(&model, nearest[j]))
                                         : "nothing";

            if (!cases[i].nearest[j] || strcmp(name, cases[i].nearest[j]) != 0)
                fail_msg("'%s' %zu: %s", cases[i].name, j, name);
        }
    }
    st_header_release(&shard.header);
}

/* Plain Levenshtein distance. */
static unsigned slow_distance(const char *x, const char *y)
{
    unsigned table[40][40];
    size_t rows = strlen(x);
    size_t columns = strlen(y);

    for (size_t i = 0; i <= rows; i++) {
        for (size_t j = 0; j <= columns; j++) {
            unsigned least = (unsigned)(i + j);

            if (i && j) {
                least = table[i - 1][j - 1] + (x[i - 1] != y[j - 1]);
                if (table[i - 1][j] + 1 < least)
                    least = table[i - 1][j] + 1;
                if (table[i][j - 1] + 1 < least)
                    least = table[i][j - 1] + 1;
            }
            table[i][j] = least;
        }
    }
    return table[rows][columns];
}

/* The bounded search finds what the slow distance finds. */
static void test_model__nearest_as_slow(void **state)
{
    uint64_t random = 1;
    (void)state;

    print_message("seed 1\n");
    for (int round = 0; round < 2000; round++) {
        char words[9][40];
        const char *names[8];
        struct model_ref refs[8];
        struct model_ref nearest;
        struct model_shard shard;
        struct model model;
        unsigned least = UINT32_MAX;
        unsigned limit;

        for (size_t i = 0; i < 9; i++) {
            size_t length = 2; /* the number keeps names distinct */

            random = random * 6364136223846793005u + 1442695040888963407u;
            length += random >> 33 & 31;
            for (size_t j = 0; j < length; j++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                words[i][j] = (char)('a' + (random >> 33) % 3);
            }
            words[i][0] = (char)('0' + i);
            words[i][length] = '\0';
        }
        for (size_t i = 0; i < 8; i++) {
            unsigned distance = slow_distance(words[8], words[i]);

            names[i] = words[i];
            least = distance < least ? distance : least;
        }
        limit = (unsigned)min_u64(24, strlen(words[8]) / 2 + 1);
        model = model_of(&shard, refs, names, 8);
        if (model_nearest(&model, words[8], &nearest, 1)) {
            const char *found = st_name(&shard.header, model_tensor(&model, nearest));

            assert_int_equal(slow_distance(words[8], found), least);
        } else {
            assert_true(least > limit);
        }
        st_header_release(&shard.header);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_model__refuses_what_is_not_there, set_up,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__refuses_other_directories, set_up,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__refuses_other_files, set_up, scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__refuses_damaged_shards, set_up, scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__refuses_index_and_shards_that_differ, set_up,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__refuses_an_index_that_is_no_file, set_up,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__opens_shards_by_index, set_up, scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__warns_of_index_beside_model, set_up,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__opens_one_file_of_a_directory, set_up,
                                        scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__opens_a_single_file, set_up, scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__opens_a_bare_name, set_up, scratch_remove),
        cmocka_unit_test_setup_teardown(test_model__follows_links, set_up, scratch_remove),
        cmocka_unit_test(test_model__knows_safe_names),
        cmocka_unit_test(test_model__nearest_names),
        cmocka_unit_test(test_model__nearest_as_slow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

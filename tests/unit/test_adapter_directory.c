#include "adapter/adapter.h"
#include "adapter/directory.h"
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
#define CONFIG ADAPTER_CONFIG_FILE
#define WEIGHTS ADAPTER_WEIGHTS_FILE
#define TORCH ADAPTER_TORCH_FILE

/* An empty file "place/.../name", with the directories it needs. */
static void touch(const char *place, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", place, name);
    scratch_text(path, "");
}

static char said[1024];

static void write_log(void *context, enum log_level level, const char *sentence)
{
    (void)context;
    assert_int_equal(level, LOG_NOTICE);
    snprintf(said, sizeof(said), "%s", sentence);
}

static const struct log log_here = { write_log, NULL };

/* What is found must be `directory`, a path in the scratch directory. */
static void assert_found(const char *path, const char *directory, enum adapter_weights expected)
{
    enum adapter_weights weights = ADAPTER_SAFETENSORS;
    struct error err = { 0 };
    char *found = NULL;

    said[0] = '\0';
    if (adapter_directory_find(&found, &weights, in_scratch(path), &log_here, &err))
        fail_msg("%s: %s", path, err.text);
    assert_string_equal(found, in_scratch(directory));
    assert_int_equal(weights, expected);
    free(found);
}

static void assert_refused(const char *path, int code, const char *part)
{
    enum adapter_weights weights;
    struct error err = { 0 };
    char *found = NULL;

    if (adapter_directory_find(&found, &weights, in_scratch(path), &log_here, &err) != code ||
        !strstr(err.text, part))
        fail_msg("%s: %d '%s', not '%s'", path, err.code, err.text, part);
    assert_null(found);
}

/* Directories that are no adapter, and what is said of them. */
static const struct {
    const char *files[3];
    int code;
    const char *part;
} places[] = {
    { { "notes.txt" }, ERR_FORMAT, "there is no " CONFIG ", which every PEFT adapter has" },
    { { "config.json", "model.safetensors" }, ERR_FORMAT, "this is a whole model and no adapter" },
    { { "model.safetensors.index.json" }, ERR_FORMAT, "this is a whole model and no adapter" },
    { { WEIGHTS }, ERR_FORMAT, "beside the weights; rank and alpha" },
    { { TORCH }, ERR_FORMAT, "beside the weights; rank and alpha" },
    { { TORCH, "a/" CONFIG, "a/" WEIGHTS }, ERR_FORMAT, "beside the weights; rank and alpha" },
    { { CONFIG }, ERR_FORMAT, "there is no " WEIGHTS " in it, and no " TORCH },
    { { CONFIG, "a/" CONFIG, "a/" WEIGHTS }, ERR_FORMAT, "there is no " WEIGHTS " in it" },
    { { "a/" CONFIG, "b/" WEIGHTS }, ERR_FORMAT, "which every PEFT adapter has" },
    { { "a/b/" CONFIG, "a/b/" WEIGHTS }, ERR_FORMAT, "which every PEFT adapter has" },
    { { ".a/" CONFIG, ".a/" WEIGHTS }, ERR_FORMAT, "which every PEFT adapter has" },
};

static void test_directory__places_that_hold_none(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(places); i++) {
        char directory[16];

        snprintf(directory, sizeof(directory), "place%zu", i);
        for (size_t f = 0; f < COUNT(places[i].files) && places[i].files[f]; f++)
            touch(directory, places[i].files[f]);
        assert_refused(directory, places[i].code, places[i].part);
    }
    assert_refused("nowhere", ERR_USAGE, "there is no such directory");
    assert_refused("place0/notes.txt", ERR_FORMAT, "this is a file; an adapter is a directory");
    assert_refused("place4/" TORCH, ERR_FORMAT, "beside the weights");
}

static void test_directory__files_and_paths(void **state)
{
    (void)state;
    touch("safe", CONFIG);
    touch("safe", WEIGHTS);
    touch("torch", CONFIG);
    touch("torch", TORCH);
    touch("both", CONFIG);
    touch("both", WEIGHTS);
    touch("both", TORCH);
    assert_found("safe", "safe", ADAPTER_SAFETENSORS);
    assert_found("safe/", "safe/", ADAPTER_SAFETENSORS);
    assert_found("safe/" CONFIG, "safe", ADAPTER_SAFETENSORS);
    assert_found("safe/" WEIGHTS, "safe", ADAPTER_SAFETENSORS);
    assert_found("torch", "torch", ADAPTER_TORCH);
    assert_found("torch/" CONFIG, "torch", ADAPTER_TORCH);
    assert_found("torch/" TORCH, "torch", ADAPTER_TORCH);
    assert_found("both", "both", ADAPTER_SAFETENSORS);
    assert_found("both/" CONFIG, "both", ADAPTER_SAFETENSORS);
    assert_found("both/" TORCH, "both", ADAPTER_TORCH);
    assert_string_equal(said, "");
    assert_string_equal(adapter_weights_name(ADAPTER_TORCH), "adapter_model.bin");
    assert_string_equal(adapter_weights_name(ADAPTER_SAFETENSORS), "adapter_model.safetensors");
}

static void test_directory__file_in_the_working_directory(void **state)
{
    enum adapter_weights weights;
    struct error err = { 0 };
    char *found = NULL;
    char before[512];

    (void)state;
    assert_non_null(getcwd(before, sizeof(before)));
    touch("here", CONFIG);
    touch("here", TORCH);
    assert_int_equal(chdir(in_scratch("here")), 0);
    assert_int_equal(adapter_directory_find(&found, &weights, TORCH, NULL, &err), 0);
    assert_int_equal(chdir(before), 0);
    assert_string_equal(found, ".");
    free(found);
}

static void test_directory__the_only_one_below(void **state)
{
    (void)state;
    touch("outer/inner", CONFIG);
    touch("outer/inner", TORCH);
    touch("outer/runs", "events");
    touch("outer", "README.md");
    assert_found("outer", "outer/inner", ADAPTER_TORCH);
    assert_non_null(strstr(said, "outer': its sub-directory 'inner' is used"));
    assert_found("outer/", "outer/inner", ADAPTER_TORCH);
    /* One checkpoint is like any other only one. */
    touch("one/checkpoint-5", CONFIG);
    touch("one/checkpoint-5", WEIGHTS);
    assert_found("one", "one/checkpoint-5", ADAPTER_SAFETENSORS);
}

static void test_directory__the_root_before_what_is_below(void **state)
{
    (void)state;
    touch("named", CONFIG);
    touch("named", WEIGHTS);
    touch("named/second", CONFIG);
    touch("named/second", WEIGHTS);
    assert_found("named", "named", ADAPTER_SAFETENSORS);
    assert_string_equal(said, "");
}

static void test_directory__the_last_checkpoint(void **state)
{
    static const char *const steps[] = { "checkpoint-9", "checkpoint-1000", "checkpoint-200" };

    (void)state;
    for (size_t i = 0; i < COUNT(steps); i++) {
        char place[64];

        snprintf(place, sizeof(place), "run/%s", steps[i]);
        touch(place, CONFIG);
        touch(place, WEIGHTS);
    }
    touch("run/checkpoint-2000", "trainer_state.json"); /* no adapter was saved in it */
    assert_found("run", "run/checkpoint-1000", ADAPTER_SAFETENSORS);
    assert_non_null(strstr(said, "run': the last of its 3 checkpoints is used, 'checkpoint-1000'"));
    touch("run/checkpoint-best", CONFIG);
    touch("run/checkpoint-best", WEIGHTS);
    assert_refused("run", ERR_USAGE,
                   "4 adapters in its sub-directories ('checkpoint-1000', 'checkpoint-200', "
                   "'checkpoint-9', 'checkpoint-best'): name one of them");
}

static void test_directory__several_below(void **state)
{
    (void)state;
    for (char letter = 'j'; letter >= 'a'; letter--) {
        char place[32];

        snprintf(place, sizeof(place), "several/%c\n", letter);
        touch(place, CONFIG);
        touch(place, TORCH);
    }
    assert_refused("several", ERR_USAGE,
                   "10 adapters in its sub-directories ('a\\x0a', 'b\\x0a', 'c\\x0a', 'd\\x0a', "
                   "'e\\x0a', 'f\\x0a', 'g\\x0a', 'h\\x0a' and 2 more): name one of them");
}

/* The opener takes what was found: a torch file goes to its own reader. */
static void test_directory__opens_what_was_found(void **state)
{
    struct adapter adapter;
    struct error err = { 0 };
    FILE *file;

    (void)state;
    touch("open/inner", CONFIG);
    touch("open/inner", TORCH);
    file = fopen(in_scratch("open/inner/" CONFIG), "wb");
    assert_non_null(file);
    assert_true(fputs("{\"peft_type\":\"LORA\"}", file) > 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(adapter_open(&adapter, in_scratch("open"), false, NULL, &err), ERR_FORMAT);
    assert_non_null(strstr(err.text, "open/inner/adapter_model.bin': this is not a file of "
                                     "torch.save()"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directory__places_that_hold_none),
        cmocka_unit_test(test_directory__files_and_paths),
        cmocka_unit_test(test_directory__file_in_the_working_directory),
        cmocka_unit_test(test_directory__the_only_one_below),
        cmocka_unit_test(test_directory__the_root_before_what_is_below),
        cmocka_unit_test(test_directory__the_last_checkpoint),
        cmocka_unit_test(test_directory__several_below),
        cmocka_unit_test(test_directory__opens_what_was_found),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}

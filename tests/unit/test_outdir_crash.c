#include "outdir_help.h"

#include <signal.h>
#include <sys/wait.h>

/* ---- ends without warning ---- */

static enum outdir_step kill_at;

static void kill_self(enum outdir_step step)
{
    if (step == kill_at)
        kill(getpid(), SIGKILL);
}

/* In a child that is killed at a step of working on `path`; false if it never came there. */
static bool run_and_kill(const char *path, bool overwrite, enum outdir_step step)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        const char *const last[] = { "config.json" };
        struct outdir *outdir = NULL;
        struct error err = { 0 };

        kill_at = step;
        outdir_hooks.step = kill_self;
        if (try_open(&outdir, path, overwrite, &err) == 0 &&
            outdir_write_file(outdir, "model.safetensors", "weights", 7, &err) == 0 &&
            outdir_write_file(outdir, "config.json", "killed", 6, &err) == 0)
            outdir_publish(outdir, last, 1, &err);
        outdir_close(outdir);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static void test_outdir_crash__killed_before_it_is_published(void **state)
{
    (void)state;
    assert_true(run_and_kill("out", false, OUTDIR_STEP_MADE));
    assert_int_equal(entry_count("out.partial"), 0);
    run_whole("out", false);
    assert_string_equal(said, "");

    assert_true(run_and_kill("b", false, OUTDIR_STEP_LOCKED));
    assert_true(exists("b.partial/.lorafold-work") && !exists("b"));
    put("b.partial/model.safetensors", "stale");
    run_whole("b", false);
    assert_non_null(strstr(said, "b.partial', which an unfinished run had left"));
    assert_int_equal(entry_count("b"), 2);
    assert_true(holds("b/config.json", "new"));
    assert_int_equal(entry_count("."), 2);
}

static void test_outdir_crash__killed_when_published(void **state)
{
    (void)state;
    assert_true(run_and_kill("out", false, OUTDIR_STEP_PLACED));
    assert_true(holds("out/config.json", "killed") && exists("out/.lorafold-work"));
    check_refused("out", false, NULL, 0, "exists and is not empty");
    run_whole("out", true);
    assert_true(holds("out/config.json", "new"));
    assert_int_equal(entry_count("out"), 2);
    assert_int_equal(entry_count("."), 1);
}

static void test_outdir_crash__killed_between_the_renames(void **state)
{
    struct outdir *outdir = NULL;
    struct error err = { 0 };

    (void)state;
    outdir_hooks.no_exchange = true;
    make_model("out", "old");
    assert_true(run_and_kill("out", true, OUTDIR_STEP_OLD_MOVED));
    assert_true(!exists("out") && holds("out.lorafold-old/config.json", "old"));

    /* Without overwriting: the check only tells, opening repairs and then refuses. */
    assert_int_equal(outdir_check("out", false, NULL, 0, &err), ERR_USAGE);
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "'out' is missing because its overwriting was interrupted"));
    assert_false(exists("out"));
    assert_int_equal(try_open(&outdir, "out", false, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "exists and is not empty"));
    assert_non_null(strstr(said, "back to 'out', because its overwriting was interrupted"));
    assert_true(holds("out/config.json", "old"));
    assert_int_equal(entry_count("."), 1);

    /* With overwriting: repaired, then replaced. */
    assert_true(run_and_kill("out", true, OUTDIR_STEP_OLD_MOVED));
    said[0] = '\0';
    run_whole("out", true);
    print_message("%s", said);
    assert_non_null(strstr(said, "back to 'out'"));
    assert_true(holds("out/config.json", "new"));
    assert_int_equal(entry_count("."), 1);
}

/* Killed in every way and place of an overwrite: OUT is the old or the new one, or comes back. */
static void test_outdir_crash__killed_anywhere_in_an_overwrite(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * OUTDIR_STEPS; i++) {
        enum outdir_step step = (enum outdir_step)(i / 2);
        struct outdir *outdir = NULL;
        struct error err = { 0 };

        outdir_hooks.no_exchange = i % 2;
        make_model("out", "old");
        if (!run_and_kill("out", true, step))
            assert_true(step >= OUTDIR_STEP_MOVED_ONE || step == OUTDIR_STEP_OLD_MOVED);
        if (try_open(&outdir, "out", true, &err)) {
            /* The old directory was not marked yet: it is told of, and kept. */
            print_message("step %d: %s\n", (int)step, err.text);
            assert_int_equal(step, OUTDIR_STEP_PLACED);
            assert_true(
                holds(i % 2 ? "out.lorafold-old/config.json" : "out.partial/config.json", "old"));
            assert_true(holds("out/config.json", "killed"));
            temp_remove(realpath(i % 2 ? "out.lorafold-old" : "out.partial", NULL));
        } else {
            assert_true(holds("out/config.json", "old") || holds("out/config.json", "killed"));
            outdir_close(outdir);
        }
        run_whole("out", true);
        assert_true(holds("out/config.json", "new"));
        assert_int_equal(entry_count("out"), 2);
        assert_int_equal(entry_count("."), 1);
        temp_remove(realpath("out", NULL));
    }
}

/* Killed when published, twice: the marker of the first does not make its output a leftover. */
static void test_outdir_crash__what_was_published_is_no_leftover(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const char *old = i ? "out.lorafold-old" : "out.partial";
        struct outdir *outdir = NULL;
        struct error err = { 0 };
        char path[100];

        outdir_hooks.no_exchange = i;
        assert_true(run_and_kill("out", false, OUTDIR_STEP_PLACED));
        put("out/first", "published");
        assert_true(exists("out/.lorafold-work"));
        assert_true(run_and_kill("out", true, OUTDIR_STEP_PLACED));
        assert_true(!exists("out/first") && exists("out/.lorafold-work"));
        assert_int_not_equal(try_open(&outdir, "out", true, &err), 0);
        print_message("%s\n", err.text);
        snprintf(path, sizeof(path), "%s/first", old);
        assert_true(holds(path, "published"));
        temp_remove(realpath(old, NULL));
        temp_remove(realpath("out", NULL));
    }
}

static void test_outdir_crash__killed_while_moving_in(void **state)
{
    (void)state;
    assert_int_equal(mkdir("out", 0777), 0);
    assert_true(run_and_kill("out", false, OUTDIR_STEP_BEFORE_LAST));
    assert_true(exists("out/model.safetensors") && !exists("out/config.json"));
    check_refused("out", false, NULL, 0, "exists and is not empty");
    run_whole("out", true);
    assert_true(holds("out/config.json", "new"));
    assert_int_equal(entry_count("out"), 2);
    assert_int_equal(entry_count("."), 1);
}

static void test_outdir_crash__killed_inside_before_moving(void **state)
{
    (void)state;
    assert_int_equal(mkdir("out", 0777), 0);
    assert_true(run_and_kill("out", false, OUTDIR_STEP_LOCKED));
    assert_true(exists("out/.lorafold.partial/.lorafold-work"));
    put("out/.lorafold.partial/model.safetensors", "stale");
    run_whole("out", false);
    assert_non_null(strstr(said, "which an unfinished run had left"));
    assert_int_equal(entry_count("out"), 2);
}

/* Removal stays inside: links in a stale directory are removed, what they lead to is not. */
static void test_outdir_crash__stale_links_are_not_followed(void **state)
{
    (void)state;
    make_model("mine", "mine");
    assert_true(run_and_kill("out", false, OUTDIR_STEP_LOCKED));
    assert_int_equal(symlink("../mine", "out.partial/a"), 0);
    assert_int_equal(symlink("../mine/config.json", "out.partial/b"), 0);
    assert_int_equal(mkdir("out.partial/c", 0777), 0);
    assert_int_equal(symlink("../..", "out.partial/c/d"), 0);
    run_whole("out", false);
    assert_true(holds("mine/config.json", "mine") && exists("mine/code/x.py"));
    assert_int_equal(entry_count("out"), 2);
}

/* A finished directory, from which only its marker could not be removed, is no leftover. */
static void test_outdir_crash__a_spent_marker_marks_nothing(void **state)
{
    struct outdir *outdir = NULL;
    struct error err = { 0 };

    (void)state;
    assert_true(run_and_kill("out", false, OUTDIR_STEP_LOCKED));
    make_model("out.partial/inner", "mine");
    assert_int_equal(truncate("out.partial/" OUTDIR_MARKER, OUTDIR_SPENT_BYTES), 0);
    assert_int_equal(outdir_open(&outdir, "out", false, NULL, 0, &the_log, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "was not left by an unfinished run"));
    assert_true(holds("out.partial/inner/config.json", "mine"));
}

/* ---- two at once ---- */

#define RACERS 4

/*
 * Processes that start together, work, and publish: each output was written by one of them alone,
 * and at least one came through.
 */
static void race(bool overwrite, bool inside)
{
    int gate[2], won = 0;
    pid_t children[RACERS];

    assert_int_equal(pipe(gate), 0);
    for (int i = 0; i < RACERS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            struct outdir *outdir = NULL;
            struct error err = { 0 };
            char byte, name[16];
            int status;

            close(gate[1]);
            (void)!read(gate[0], &byte, 1); /* all start when the gate closes */
            status = try_open(&outdir, "out", overwrite, &err);
            if (status == ERR_USAGE)
                _exit(2);
            if (status) {
                fprintf(stderr, "racer %d: %s\n", i, err.text);
                _exit(1);
            }
            if (entry_count(inside ? "out/.lorafold.partial" : "out.partial") != 1) {
                fprintf(stderr, "racer %d: its work directory does not hold its lock alone\n", i);
                _exit(1);
            }
            snprintf(name, sizeof(name), "%d", i);
            if (outdir_write_file(outdir, "config.json", name, strlen(name), &err) ||
                outdir_write_file(outdir, name, name, strlen(name), &err) ||
                publish(outdir, &err)) {
                outdir_close(outdir);
                fprintf(stderr, "racer %d: %s\n", i, err.text);
                _exit(1);
            }
            outdir_close(outdir);
            _exit(0);
        }
    }
    close(gate[0]);
    close(gate[1]);
    for (int i = 0; i < RACERS; i++) {
        int status = 0;

        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status));
        assert_int_not_equal(WEXITSTATUS(status), 1);
        won += WEXITSTATUS(status) == 0;
    }
    assert_true(won >= 1);
    if (!overwrite)
        assert_int_equal(won, 1);
    assert_int_equal(entry_count("out"), 2);
    assert_int_equal(entry_count("."), 1);
}

static void test_outdir_crash__race_for_a_new_one(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        race(false, false);
        temp_remove(realpath("out", NULL));
    }
}

static void test_outdir_crash__race_for_an_empty_one(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(mkdir("out", 0777), 0);
        race(false, true);
        temp_remove(realpath("out", NULL));
    }
}

static void test_outdir_crash__race_to_overwrite(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        outdir_hooks.no_exchange = i % 2;
        make_model("out", "old");
        race(true, false);
        temp_remove(realpath("out", NULL));
    }
}

/* ---- a file system without locks ---- */

static void test_outdir_crash__without_locks(void **state)
{
    struct outdir *outdir = NULL;
    struct error err = { 0 };

    (void)state;
    outdir_hooks.no_lock = true;
    run_whole("out", false);
    run_whole("out", true);
    assert_int_equal(entry_count("out"), 2);
    /* Whether a directory that is there is in use cannot be told, so it is kept. */
    assert_true(run_and_kill("b", false, OUTDIR_STEP_LOCKED));
    put("b.partial/model.safetensors", "maybe in use");
    assert_int_equal(try_open(&outdir, "b", false, &err), ERR_USAGE);
    print_message("%s\n", err.text);
    assert_non_null(strstr(err.text, "has no locks to tell whether it is in use"));
    assert_true(holds("b.partial/model.safetensors", "maybe in use"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_outdir_crash__##name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(killed_before_it_is_published),
        TEST(killed_when_published),
        TEST(killed_between_the_renames),
        TEST(killed_anywhere_in_an_overwrite),
        TEST(what_was_published_is_no_leftover),
        TEST(killed_while_moving_in),
        TEST(killed_inside_before_moving),
        TEST(stale_links_are_not_followed),
        TEST(a_spent_marker_marks_nothing),
        TEST(race_for_a_new_one),
        TEST(race_for_an_empty_one),
        TEST(race_to_overwrite),
        TEST(without_locks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

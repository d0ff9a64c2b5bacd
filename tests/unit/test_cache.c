#include "hub/cache.h"
#include "hub/cache_directory.h"
#include "scratch.h"

#include <pwd.h>
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
#define COMMIT_1 "0123456789abcdef0123456789abcdef01234567"
#define COMMIT_2 "fedcba9876543210fedcba9876543210fedcba98"

static const struct {
    const char *text;
    bool is_name;
} names[] = {
    { "gpt2", true },
    { "org/name", true },
    { "Org-1/Name_2.0", true },
    { "a/b", true },
    { "_/_", true },
    { "org/name@main", true },
    { "org/name@refs/pr/4", true },
    { "org/name@v1.0", true },
    { "gpt2@" COMMIT_1, true },
    { "org/name@feature/x", true },
    { "", false },
    { "/", false },
    { "a/", false },
    { "/a", false },
    { "a/b/c", false },
    { "./a", false },
    { "../a", false },
    { "..", false },
    { ".", false },
    { "~/a", false },
    { "org/..", false },
    { "org/-name", false },
    { "org/name-", false },
    { "org/.name", false },
    { "org/name.", false },
    { "org/na--me", false },
    { "org/na..me", false },
    { "org--x/name", false },
    { "org/name.git", false },
    { "org/na me", false },
    { "org/n\xc3\xa4me", false },
    { "org/na\nme", false },
    { "org\\name", false },
    { "org/name@", false },
    { "org/name@/x", false },
    { "org/name@x/", false },
    { "org/name@..", false },
    { "org/name@a/../b", false },
    { "org/name@a/./b", false },
    { "org/name@a//b", false },
    { "org/name@a b", false },
    { "org/name@a\\b", false },
    { "@main", false },
};

static void test_cache__names(void **state)
{
    char text[256];

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        if (hub_is_repo_name(names[i].text) != names[i].is_name)
            fail_msg("'%s'", names[i].text);
    }
    memset(text, 'a', sizeof(text));
    text[96] = '\0';
    assert_true(hub_is_repo_name(text));
    text[96] = 'a';
    text[97] = '\0';
    assert_false(hub_is_repo_name(text));
}

/* The file `name` with its text, or the directory for NULL. */
static void make(const char *name, const char *text)
{
    if (text)
        scratch_text(name, text);
    else
        scratch_directory(name);
}

static void clear_environment(void)
{
    static const char *const variables[] = { "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                             "XDG_CACHE_HOME" };

    for (size_t i = 0; i < COUNT(variables); i++)
        unsetenv(variables[i]);
    setenv("HOME", scratch, 1);
}

static int set_up(void **state)
{
    scratch_make(state);
    clear_environment();
    return 0;
}

#define HUB ".cache/huggingface/hub/"

static void fill(void)
{
    make(HUB "models--org--name/refs/main", COMMIT_1);
    make(HUB "models--org--name/refs/refs/pr/4", COMMIT_2 "\n");
    make(HUB "models--org--name/refs/gone", "1111111111111111111111111111111111111111");
    make(HUB "models--org--name/refs/escape", "../../../elsewhere");
    make(HUB "models--org--name/refs/dots", "..");
    make(HUB "models--org--name/refs/empty", "");
    make(HUB "models--org--name/snapshots/" COMMIT_1 "/config.json", "{}");
    make(HUB "models--org--name/snapshots/" COMMIT_2, NULL);
    make(HUB "models--gpt2/snapshots/" COMMIT_2, NULL);
    make(HUB "models--org--two/snapshots/" COMMIT_1, NULL);
    make(HUB "models--org--two/snapshots/" COMMIT_2, NULL);
    make(HUB "models--org--stale/refs/main", COMMIT_1);
    make(HUB "models--org--stale/snapshots/" COMMIT_2, NULL);
    make(HUB "models--org--none", NULL);
    make("elsewhere", NULL);
}

static const struct {
    const char *name;
    const char *commit; /* NULL: refused */
    const char *part;   /* of the directory, or of the sentence */
} finds[] = {
    { "org/name", COMMIT_1, "/models--org--name/snapshots/" COMMIT_1 },
    { "org/name@main", COMMIT_1, "/models--org--name/snapshots/" COMMIT_1 },
    { "org/name@refs/pr/4", COMMIT_2, "/snapshots/" COMMIT_2 },
    { "org/name@" COMMIT_2, COMMIT_2, "/snapshots/" COMMIT_2 },
    { "gpt2", COMMIT_2, "/models--gpt2/snapshots/" COMMIT_2 },
    { "org/absent", NULL, "'org/absent' is not in the Hugging Face cache" },
    { "org/absent", NULL, "hub'; fetch it with: lorafold fetch org/absent" },
    { "org/name@v2", NULL, "revision 'v2' of 'org/name' is not in" },
    { "org/name@v2", NULL, "fetch it with: lorafold fetch org/name@v2" },
    { "org/name@gone", NULL, "revision 'gone'" },
    { "org/name@escape", NULL, "revision 'escape'" },
    { "org/name@dots", NULL, "revision 'dots'" },
    { "org/name@empty", NULL, "revision 'empty'" },
    { "org/name@refs", NULL, "revision 'refs'" },
    { "org/name@" COMMIT_1 "0", NULL, "is not in" },
    { "org/two", NULL, "revision 'main' of 'org/two'" },
    { "org/stale", NULL, "revision 'main' of 'org/stale'" },
    { "org/none", NULL, "revision 'main' of 'org/none'" },
    { "../org", NULL, "is not the name of a repository" },
    { "org/name@../..", NULL, "is not the name of a repository" },
};

static void test_cache__finds(void **state)
{
    (void)state;
    fill();
    for (size_t i = 0; i < COUNT(finds); i++) {
        struct hub_snapshot snapshot = { 0 };
        struct error err = { 0 };
        int code = hub_cache_find(&snapshot, finds[i].name, &err);

        if (!finds[i].commit) {
            if (code != ERR_USAGE || !strstr(err.text, finds[i].part))
                fail_msg("%s: %d %s", finds[i].name, code, err.text);
            assert_null(snapshot.directory);
            continue;
        }
        if (code)
            fail_msg("%s: %d %s", finds[i].name, code, err.text);
        assert_string_equal(snapshot.commit, finds[i].commit);
        assert_non_null(strstr(snapshot.directory, finds[i].part));
        assert_true(strncmp(snapshot.repo, finds[i].name, strlen(snapshot.repo)) == 0);
        hub_snapshot_release(&snapshot);
    }
}

static void check_found_in(const char *directory)
{
    struct hub_snapshot snapshot = { 0 };
    struct error err = { 0 };
    char expected[512];

    snprintf(expected, sizeof(expected), "%s/%s/models--o--n/snapshots/" COMMIT_1, scratch,
             directory);
    if (hub_cache_find(&snapshot, "o/n", &err))
        fail_msg("%s", err.text);
    assert_string_equal(snapshot.directory, expected);
    assert_string_equal(snapshot.repo, "o/n");
    assert_string_equal(snapshot.revision, "main");
    hub_snapshot_release(&snapshot);
}

static void test_cache__environment(void **state)
{
    static const char *const places[] = { ".cache/huggingface/hub", "xdg/huggingface/hub",
                                          "home/hub", "old", "new" };
    char value[256];

    (void)state;
    for (size_t i = 0; i < COUNT(places); i++) {
        char name[256];

        snprintf(name, sizeof(name), "%s/models--o--n/refs/main", places[i]);
        make(name, COMMIT_1);
        snprintf(name, sizeof(name), "%s/models--o--n/snapshots/" COMMIT_1, places[i]);
        make(name, NULL);
    }
    check_found_in(places[0]);
    setenv("XDG_CACHE_HOME", "~/xdg", 1);
    check_found_in(places[1]);
    setenv("HF_HOME", "$HOME/home", 1);
    check_found_in(places[2]);
    setenv("HUGGINGFACE_HUB_CACHE", "${HOME}/old", 1);
    check_found_in(places[3]);
    snprintf(value, sizeof(value), "%s/new", scratch);
    setenv("HF_HUB_CACHE", value, 1);
    check_found_in(places[4]);
    setenv("HF_HUB_CACHE", "", 1);
    check_found_in(places[3]);
    setenv("HF_HUB_CACHE", "$LORAFOLD_UNSET_VARIABLE/${/$/~", 1);
    {
        struct hub_snapshot snapshot;
        struct error err = { 0 };

        assert_int_equal(hub_cache_find(&snapshot, "o/n", &err), ERR_USAGE);
        assert_non_null(strstr(err.text, "'$LORAFOLD_UNSET_VARIABLE/${/$/~'"));
    }
    clear_environment();
}

static void test_cache__offline(void **state)
{
    static const struct {
        const char *hub;
        const char *transformers;
        bool is;
    } cases[] = {
        { NULL, NULL, false }, { "1", NULL, true },  { "yes", NULL, true },   { "On", NULL, true },
        { "0", "1", false },   { "", "TRUE", true }, { "maybe", "1", false }, { NULL, "2", false },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        unsetenv("HF_HUB_OFFLINE");
        unsetenv("TRANSFORMERS_OFFLINE");
        if (cases[i].hub)
            setenv("HF_HUB_OFFLINE", cases[i].hub, 1);
        if (cases[i].transformers)
            setenv("TRANSFORMERS_OFFLINE", cases[i].transformers, 1);
        if (hub_is_offline() != cases[i].is)
            fail_msg("case %zu", i);
    }
    unsetenv("HF_HUB_OFFLINE");
    unsetenv("TRANSFORMERS_OFFLINE");
}

/* Without HOME, as in a service: what the list of users says. */
static void test_cache__home_of_the_user(void **state)
{
    const struct passwd *user = getpwuid(getuid());
    struct text text = { 0 };
    char expected[512];

    (void)state;
    unsetenv("HOME");
    hub_add_cache_directory(&text);
    snprintf(expected, sizeof(expected), "%s/.cache/huggingface/hub", user ? user->pw_dir : "/");
    assert_string_equal(text.data, expected);
    text_release(&text);
    clear_environment();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache__names),
        cmocka_unit_test(test_cache__finds),
        cmocka_unit_test(test_cache__environment),
        cmocka_unit_test(test_cache__offline),
        cmocka_unit_test(test_cache__home_of_the_user),
    };

    return cmocka_run_group_tests(tests, set_up, scratch_remove);
}

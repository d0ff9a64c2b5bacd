/* A conversation with the Hub helper, played by shell scripts: every way in which it can go wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/text.h"
#include "hub/helper.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Answers the greeting; what follows is the script of the test. */
#define GREETED                                                                                    \
    "read -r line\n"                                                                               \
    "echo '{\"id\": 1, \"done\": {\"protocol\": 1}}'\n"
#define PLAYING "LORAFOLD_TEST_PLAYS_HELPER"
#define SOON 20000 /* ms; nothing here takes that long unless it hangs */

static char directory[] = "/tmp/lorafold-helper-XXXXXX";
static char script[64];
static const char *const script_alone[] = { script, NULL };
static struct text said; /* what the helper logged, one line each */

static void remember(void *context, enum log_level level, const char *sentence)
{
    (void)context;
    text_addf(&said, "%d %s\n", (int)level, sentence);
}

static const struct log remembering = { .write = remember };

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(script, sizeof(script), "%s/helper", directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(script);
    return rmdir(directory);
}

/* No child is left behind by any test, dead or alive. */
static int after(void **state)
{
    (void)state;
    text_release(&said);
    said = (struct text){ 0 };
    return waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD ? 0 : -1;
}

static void write_script(const char *body)
{
    FILE *file = fopen(script, "w");

    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s", body);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(script, 0755), 0);
}

static int start(struct hub_helper **out, const char *body, struct error *err)
{
    struct hub_helper_options options = { .program = script_alone, .log = &remembering };

    write_script(body);
    return hub_helper_start(out, &options, err);
}

static struct hub_helper *started(const char *body)
{
    struct hub_helper *helper = NULL;
    struct error err = { 0 };

    if (start(&helper, body, &err))
        fail_msg("%s", err.text);
    return helper;
}

static uint64_t ask(struct hub_helper *helper, const char *members)
{
    struct error err = { 0 };
    uint64_t id = 0;

    if (hub_helper_request(helper, "store", members, &id, &err))
        fail_msg("%s", err.text);
    return id;
}

static void assert_ends(struct hub_helper *helper, const char *words)
{
    struct hub_answer answer;
    struct error err = { 0 };
    uint64_t id;

    assert_int_equal(hub_helper_answer(helper, &answer, SOON, &err), ERR_FAILED);
    if (!strstr(err.text, words))
        fail_msg("'%s' is not in: %s", words, err.text);
    /* It stays so. */
    err = (struct error){ 0 };
    assert_int_equal(hub_helper_answer(helper, &answer, SOON, &err), ERR_FAILED);
    assert_non_null(strstr(err.text, words));
    assert_int_equal(hub_helper_request(helper, "store", "", &id, &err), ERR_FAILED);
}

static void test_a_conversation(void **state)
{
    struct hub_helper *helper = started(
        GREETED
        "read -r line; read -r other\n"
        "echo talk >&2\n"
        "echo '{\"notice\": \"wait a little\"}'\n"
        "echo '{\"id\": 2, \"progress\": {\"bytes\": 5}}'\n"
        "echo '{\"id\": 3, \"done\": {}}'\n"
        "echo '{\"id\": 2, \"error\": \"gated\", \"exit\": 1, \"sentence\": \"it is gated\"}'\n"
        "read -r line\n");
    struct hub_answer answer;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(ask(helper, "\"path\":\"a\\n\""), 2);
    assert_int_equal(ask(helper, ""), 3);
    assert_int_equal(hub_helper_answer(helper, &answer, SOON, &err), 0);
    assert_int_equal(answer.kind, HUB_ANSWER_PROGRESS);
    assert_int_equal(answer.id, 2);
    assert_int_equal(cJSON_GetObjectItem(answer.body, "bytes")->valueint, 5);
    hub_answer_release(&answer);
    assert_int_equal(hub_helper_answer(helper, &answer, SOON, &err), 0);
    assert_int_equal(answer.kind, HUB_ANSWER_DONE);
    assert_int_equal(answer.id, 3);
    hub_answer_release(&answer);
    assert_int_equal(hub_helper_answer(helper, &answer, SOON, &err), 0);
    assert_int_equal(answer.kind, HUB_ANSWER_FAILED);
    assert_int_equal(answer.error.code, ERR_FAILED);
    assert_string_equal(answer.error.text, "it is gated");
    hub_answer_release(&answer);
    assert_int_equal(hub_helper_answer(helper, &answer, 10, &err), 0);
    assert_int_equal(answer.kind, HUB_ANSWER_NONE);
    assert_int_equal(hub_helper_answer(helper, &answer, 0, &err), 0);
    assert_int_equal(answer.kind, HUB_ANSWER_NONE);
    hub_helper_close(helper);
    assert_non_null(strstr(said.data, "1 wait a little\n"));
    assert_non_null(strstr(said.data, ": talk\n"));
}

/* The requests as the helper sees them; the token's file is named, the token is not there. */
static void test_what_is_sent(void **state)
{
    struct hub_helper_options options = { .program = script_alone,
                                          .token_file = "/tmp/my \"token\"",
                                          .log = &remembering };
    struct hub_helper *helper;
    struct error err = { 0 };
    struct hub_answer answer;

    (void)state;
    write_script("read -r line; echo \"$line\" >&2\n"
                 "echo '{\"id\": 1, \"done\": {\"protocol\": 1}}'\n"
                 "read -r line; echo \"$line\" >&2; echo \"$# arguments\" >&2\n"
                 "echo '{\"id\": 2, \"done\": {}}'\n");
    assert_int_equal(hub_helper_start(&helper, &options, &err), 0);
    ask(helper, "\"path\":\"x\",\"delete\":true");
    assert_int_equal(hub_helper_answer(helper, &answer, SOON, &err), 0);
    hub_answer_release(&answer);
    assert_ends(helper, "exit status 0");
    hub_helper_close(helper);
    assert_non_null(strstr(
        said.data, ": {\"id\":1,\"do\":\"hello\",\"token_file\":\"/tmp/my \\\"token\\\"\"}\n"));
    assert_non_null(
        strstr(said.data, ": {\"id\":2,\"do\":\"store\",\"path\":\"x\",\"delete\":true}\n"));
    assert_non_null(strstr(said.data, ": 0 arguments\n"));
}

static void test_not_installed(void **state)
{
    static const char *const absent[] = { "/tmp/there/is no such\nhelper", NULL };
    struct hub_helper_options options = { 0 };
    struct hub_helper *helper = NULL;
    struct error err = { 0 };

    (void)state;
    options.program = absent;
    assert_int_equal(hub_helper_start(&helper, &options, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "'/tmp/there/is no such\\x0ahelper', which is not there"));
    assert_non_null(strstr(err.text, "install it with: pipx install 'lorafold[hub]'"));
    write_script("exit 0\n");
    assert_int_equal(chmod(script, 0644), 0);
    options.program = script_alone;
    assert_int_equal(hub_helper_start(&helper, &options, &err), ERR_USAGE);
    assert_null(helper);
}

/* By the variable, and without it by its name on the path. */
static void test_where_it_is_found(void **state)
{
    struct hub_helper_options options = { 0 };
    struct hub_helper *helper = NULL;
    struct error err = { 0 };
    char *path = strdup(getenv("PATH"));
    char python[64];

    (void)state;
    write_script(GREETED "read -r line\n");
    setenv("LORAFOLD_HUB", script, 1);
    assert_int_equal(hub_helper_start(&helper, &options, &err), 0);
    hub_helper_close(helper);
    unsetenv("LORAFOLD_HUB");
    setenv("PATH", directory, 1);
    assert_int_equal(hub_helper_start(&helper, &options, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "'lorafold-hub'"));
    snprintf(python, sizeof(python), "%s/python3", directory);
    write_script("echo \"$0: No module named lorafold_hub\" >&2; exit 1\n");
    assert_int_equal(rename(script, python), 0);
    assert_int_equal(hub_helper_start(&helper, &options, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "'lorafold-hub', which is not there"));
    write_script("test \"$*\" = '-m lorafold_hub' || exit 3\n" GREETED "read -r line\n");
    assert_int_equal(rename(script, python), 0);
    options.log = &remembering;
    assert_int_equal(hub_helper_start(&helper, &options, &err), 0);
    hub_helper_close(helper);
    assert_non_null(strstr(said.data, "2 Hub helper: 'python3 -m lorafold_hub' "));
    assert_int_equal(unlink(python), 0);
    setenv("PATH", path, 1);
    free(path);
}

/* It is in the helper's environment alone, in place of the caller's own. */
static void test_a_token(void **state)
{
    struct hub_helper_options options = { .program = script_alone, .log = &remembering };
    struct hub_helper *helper = NULL;
    struct error err = { 0 };

    (void)state;
    write_script("echo \"$HF_TOKEN,$HUGGING_FACE_HUB_TOKEN,$HF_HUB_DISABLE_IMPLICIT_TOKEN\" >&2\n"
                 "echo '{\"id\": 1, \"done\": {\"protocol\": 1}}'\n");
    setenv("HF_TOKEN", "of-the-caller", 1);
    setenv("HUGGING_FACE_HUB_TOKEN", "of-the-caller", 1);
    options.token = "given";
    assert_int_equal(hub_helper_start(&helper, &options, &err), 0);
    assert_ends(helper, "exit status 0");
    hub_helper_close(helper);
    assert_non_null(strstr(said.data, ": given,,\n"));
    options.token = "";
    assert_int_equal(hub_helper_start(&helper, &options, &err), 0);
    assert_ends(helper, "exit status 0");
    hub_helper_close(helper);
    assert_non_null(strstr(said.data, ": ,,1\n"));
    assert_string_equal(getenv("HF_TOKEN"), "of-the-caller");
    unsetenv("HF_TOKEN");
    unsetenv("HUGGING_FACE_HUB_TOKEN");
}

struct waited {
    int asked;
    uint64_t bytes;
    uint64_t total;
};

static bool give_up(void *context)
{
    struct waited *waited = context;

    return ++waited->asked > 2;
}

static void note_progress(void *context, uint64_t bytes, uint64_t total)
{
    struct waited *waited = context;

    waited->bytes = bytes;
    waited->total = total;
}

static void test_asking(void **state)
{
    struct waited waited = { 0 };
    const struct hub_waiter waiter = { .progress = note_progress, .context = &waited };
    const struct hub_waiter impatient = { .cancelled = give_up, .context = &waited };
    struct hub_helper *helper = started(
        GREETED "read -r line\n"
                "echo '{\"id\": 2, \"progress\": {\"bytes\": 5, \"total\": 9}}'\n"
                "echo '{\"id\": 2, \"progress\": {\"bytes\": -5, \"total\": 1e300}}'\n"
                "echo '{\"id\": 2, \"progress\": {\"bytes\": 9, \"total\": 9}}'\n"
                "echo '{\"id\": 2, \"done\": {\"x\": 1}}'\n"
                "read -r line\n"
                "echo '{\"id\": 3, \"error\": \"name\", \"exit\": 2, \"sentence\": \"no\"}'\n"
                "read -r line; read -r line\n");
    cJSON *body = NULL;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(hub_helper_ask(helper, "fetch", "", &waiter, &body, &err), 0);
    assert_int_equal(waited.bytes, 9);
    assert_int_equal(waited.total, 9);
    assert_int_equal(cJSON_GetObjectItem(body, "x")->valueint, 1);
    cJSON_Delete(body);
    assert_int_equal(hub_helper_ask(helper, "fetch", "", NULL, &body, &err), ERR_USAGE);
    assert_string_equal(err.text, "no");
    assert_int_equal(hub_helper_ask(helper, "fetch", "", &impatient, &body, &err), ERR_CANCELLED);
    hub_helper_close(helper);
}

static void test_greetings_that_fail(void **state)
{
    static const struct {
        const char *body;
        int code;
        const char *words;
    } cases[] = {
        { "read -r line; echo '{\"id\": 1, \"done\": {\"protocol\": 2}}'; read -r line\n",
          ERR_USAGE, "speaks protocol 2 and not 1" },
        { "read -r line; echo '{\"id\": 1, \"done\": {}}'; read -r line\n", ERR_USAGE,
          "speaks protocol 0 and not 1" },
        { "read -r line\n"
          "echo '{\"id\": 1, \"error\": \"token_file\", \"exit\": 2, \"sentence\": \"no file\"}'\n",
          ERR_USAGE, "no file" },
        { "echo 'No module named x' >&2; exit 3\n", ERR_FAILED,
          "ended in the middle: exit status 3, 'No module named x'" },
        { "exit 0\n", ERR_FAILED, "ended in the middle: exit status 0" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct hub_helper *helper = NULL;
        struct error err = { 0 };

        assert_int_equal(start(&helper, cases[i].body, &err), cases[i].code);
        if (!strstr(err.text, cases[i].words))
            fail_msg("'%s' is not in: %s", cases[i].words, err.text);
        assert_null(helper);
    }
}

/* Before a request is read, in the middle of an answer, by a signal. */
static void test_ends_in_the_middle(void **state)
{
    static const char *const bodies[][2] = {
        { GREETED "read -r line; printf '{\"id\": 2, \"do'; exit 7\n", "exit status 7" },
        { GREETED "read -r line; printf 'Traceback' >&2; kill -9 $$\n", "signal 9, 'Traceback'" },
        { GREETED "exit 4\n", "exit status 4" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        struct hub_helper *helper = started(bodies[i][0]);

        ask(helper, "");
        assert_ends(helper, bodies[i][1]);
        hub_helper_close(helper);
    }
}

/* Writing to a helper that no longer reads is no SIGPIPE, which would end this program. */
static void test_request_to_one_that_does_not_read(void **state)
{
    struct hub_helper *helper;
    struct hub_answer answer;
    struct error err = { 0 };
    char fifo[64];
    char body[256];

    (void)state;
    snprintf(fifo, sizeof(fifo), "%s/fifo", directory);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    snprintf(body, sizeof(body),
             GREETED "exec 0<&-; echo '{\"notice\": \"deaf\"}'; read -r line <%s; exit 5\n", fifo);
    helper = started(body);
    signal(SIGPIPE, SIG_DFL);
    while (!said.data || !strstr(said.data, "deaf"))
        assert_int_equal(hub_helper_answer(helper, &answer, 10, &err), 0);
    ask(helper, "");
    close(open(fifo, O_WRONLY | O_CLOEXEC));
    assert_ends(helper, "exit status 5");
    hub_helper_close(helper);
    unlink(fifo);
}

static void test_nonsense(void **state)
{
    static const char *const lines[] = {
        "hello",
        "",
        "[]",
        "7",
        "{",
        "{}",
        "{\"id\": 1}",
        "{\"id\": 3, \"done\": {}}",
        "{\"id\": -1, \"done\": {}}",
        "{\"id\": 1.5, \"done\": {}}",
        "{\"id\": 1e300, \"done\": {}}",
        "{\"id\": \"2\", \"done\": {}}",
        "{\"id\": 2, \"done\": 5}",
        "{\"id\": 2, \"progress\": []}",
        "{\"id\": 0, \"done\": {}}",
        "{\"id\": 2, \"done\": {}} {}",
        "{\"id\": 2, \"id\": 2, \"done\": {}}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct text body = { 0 };
        struct hub_helper *helper;

        text_addf(&body, GREETED "read -r line; echo '%s'; read -r line\n", lines[i]);
        helper = started(body.data);
        ask(helper, "");
        assert_ends(helper, "gives what is no answer");
        hub_helper_close(helper);
        text_release(&body);
    }
}

static void test_a_failure_of_the_whole_conversation(void **state)
{
    struct hub_helper *helper = started(
        GREETED "read -r line\n"
                "echo '{\"id\": 0, \"error\": \"x\", \"exit\": 1, \"sentence\": \"too long\"}'\n");

    (void)state;
    ask(helper, "");
    assert_ends(helper, "too long");
    hub_helper_close(helper);
}

static void test_lines_that_are_too_long(void **state)
{
    struct hub_helper *helper = started(
        GREETED "read -r line; head -c 200000 /dev/zero | tr '\\0' x; read -r line\n");
    struct error err = { 0 };
    struct text members = { 0 };
    struct hub_answer answer;
    uint64_t id;

    (void)state;
    text_adds(&members, "\"x\":\"");
    for (int i = 0; i < HUB_LINE_BYTES_MAX; i++)
        text_add(&members, "y", 1);
    text_adds(&members, "\"");
    assert_int_equal(hub_helper_request(helper, "store", members.data, &id, &err), ERR_USAGE);
    assert_non_null(strstr(err.text, "the limit is 65536"));
    text_release(&members);
    ask(helper, ""); /* it is still of use */
    assert_ends(helper, "gives what is no answer: 'xxx");
    hub_helper_close(helper);

    /* Talk of any length is no reason to stop. */
    helper = started(GREETED "read -r line; head -c 200000 /dev/zero >&2\n"
                             "echo '{\"id\": 2, \"done\": {}}'; read -r line\n");
    ask(helper, "");
    assert_int_equal(hub_helper_answer(helper, &answer, SOON, &err), 0);
    assert_int_equal(answer.kind, HUB_ANSWER_DONE);
    hub_answer_release(&answer);
    hub_helper_close(helper);
}

static void test_requests_that_are_no_json(void **state)
{
    static const char *const members[] = { "path", "\"a\":1,\"a\":2", "\"a\":\n1",
                                           "\"a\":\"\x80\"" };
    struct hub_helper *helper = started(GREETED "read -r line; exit 9\n");
    struct error err = { 0 };
    uint64_t id;

    (void)state;
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        assert_int_equal(hub_helper_request(helper, "store", members[i], &id, &err), ERR_USAGE);
    hub_helper_close(helper);
}

/* One that hears nothing is ended all the same, long before its time. */
static void test_one_that_does_not_end(void **state)
{
    struct hub_helper *helper;
    char trace[64];
    char body[256];

    (void)state;
    snprintf(trace, sizeof(trace), "%s/survived", directory);
    snprintf(body, sizeof(body), GREETED "trap '' TERM HUP PIPE\nsleep 60 & wait\n: >%s\n", trace);
    helper = started(body);
    hub_helper_close(helper);
    assert_int_equal(access(trace, F_OK), -1);
}

/* This program as the helper, because a shell changes its own signals. */
static int play_helper(void)
{
    struct sigaction action;
    sigset_t blocked;

    sigaction(SIGPIPE, NULL, &action);
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    fprintf(stderr, "TERM %s, PIPE %s\n", sigismember(&blocked, SIGTERM) ? "blocked" : "open",
            action.sa_handler == SIG_IGN ? "ignored" : "default");
    puts("{\"id\": 1, \"done\": {\"protocol\": 1}}");
    return 0;
}

/* The host's signals are not the helper's. */
static void test_signals_of_the_child(void **state)
{
    static const char *const self[] = { "/proc/self/exe", NULL };
    struct hub_helper_options options = { .program = self, .log = &remembering };
    struct hub_helper *helper = NULL;
    struct error err = { 0 };
    sigset_t term;

    (void)state;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &term, NULL);
    setenv(PLAYING, "1", 1);
    assert_int_equal(hub_helper_start(&helper, &options, &err), 0);
    assert_ends(helper, "exit status 0");
    hub_helper_close(helper);
    unsetenv(PLAYING);
    sigprocmask(SIG_UNBLOCK, &term, NULL);
    signal(SIGPIPE, SIG_DFL);
    assert_non_null(strstr(said.data, ": TERM open, PIPE default\n"));
}

#define HELPER_TEST(function) cmocka_unit_test_teardown(function, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HELPER_TEST(test_a_conversation),
        HELPER_TEST(test_what_is_sent),
        HELPER_TEST(test_not_installed),
        HELPER_TEST(test_where_it_is_found),
        HELPER_TEST(test_a_token),
        HELPER_TEST(test_asking),
        HELPER_TEST(test_greetings_that_fail),
        HELPER_TEST(test_ends_in_the_middle),
        HELPER_TEST(test_request_to_one_that_does_not_read),
        HELPER_TEST(test_nonsense),
        HELPER_TEST(test_a_failure_of_the_whole_conversation),
        HELPER_TEST(test_lines_that_are_too_long),
        HELPER_TEST(test_requests_that_are_no_json),
        HELPER_TEST(test_one_that_does_not_end),
        HELPER_TEST(test_signals_of_the_child),
    };

    if (getenv(PLAYING))
        return play_helper();
    return cmocka_run_group_tests(tests, setup, teardown);
}

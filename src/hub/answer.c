/* answer.c - what the helper says: answers, notices, and its end */
#include "hub/helper_internal.h"

#include "base/json.h"

#include <cjson/cJSON.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#define SENTENCE_BYTES 900

int64_t helper_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int helper_broken(const struct hub_helper *helper, struct error *err)
{
    *err = helper->broken;
    return err->code;
}

static void pass_talk(struct hub_helper *helper)
{
    const char *line;
    size_t bytes;

    while (lines_take(&helper->talk, &line, &bytes)) {
        char sentence[SENTENCE_BYTES];

        if (!bytes)
            continue;
        error_quote(sentence, sizeof(sentence), line, bytes);
        error_quote(helper->last_words, sizeof(helper->last_words), line, bytes);
        log_say(helper->log, LOG_DETAIL, "%s: %s", helper->program, sentence);
    }
    if (lines_overlong(&helper->talk))
        lines_drop(&helper->talk);
}

/* The answers have ended: say how, with the last thing that it said about it. */
static void note_end(struct hub_helper *helper)
{
    char how[64];

    child_wait(&helper->child, HELPER_END_MS, how, sizeof(how));
    while (!helper->talk.ended && helper->talk.bytes < sizeof(helper->talk.data)) {
        size_t before = helper->talk.bytes;

        lines_fill(&helper->talk, helper->child.talk);
        if (helper->talk.bytes == before)
            break;
    }
    helper->talk.ended = true;
    if (helper->talk.bytes < sizeof(helper->talk.data)) /* its last line may have no end */
        helper->talk.data[helper->talk.bytes++] = '\n';
    pass_talk(helper);
    error_set(&helper->broken, ERR_FAILED, "the Hub helper '%s' ended in the middle: %s%s%s%s",
              helper->program, how, *helper->last_words ? ", '" : "", helper->last_words,
              *helper->last_words ? "'" : "");
}

static void note_nonsense(struct hub_helper *helper, const char *line, size_t bytes)
{
    char quoted[QUOTED_BYTES];

    error_set(&helper->broken, ERR_FAILED, "the Hub helper '%s' gives what is no answer: '%s'",
              helper->program, error_quote(quoted, sizeof(quoted), line, bytes));
}

/* Wait for bytes of either kind and read them.  timeout_ms < 0 waits for ever. */
static void read_some(struct hub_helper *helper, int timeout_ms)
{
    struct pollfd fds[2] = { { .fd = helper->child.answers, .events = POLLIN },
                             { .fd = helper->child.talk, .events = POLLIN } };

    if (helper->talk.ended)
        fds[1].fd = -1;
    if (poll(fds, 2, timeout_ms) <= 0)
        return;
    if (fds[0].revents)
        lines_fill(&helper->answers, helper->child.answers);
    if (fds[1].revents)
        lines_fill(&helper->talk, helper->child.talk);
}

static void answer_failed(struct hub_answer *out, const cJSON *tree)
{
    const char *said = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, "sentence"));
    const cJSON *code = cJSON_GetObjectItemCaseSensitive(tree, "exit");
    char sentence[SENTENCE_BYTES];
    bool usage = cJSON_IsNumber(code) && code->valueint == ERR_USAGE;

    out->kind = HUB_ANSWER_FAILED;
    error_quote(sentence, sizeof(sentence), said, strlen(said));
    error_set(&out->error, usage ? ERR_USAGE : ERR_FAILED, "%s", sentence);
}

/* True if the tree is an answer; its body then belongs to `out`. */
static bool understand(struct hub_helper *helper, struct hub_answer *out, cJSON *tree)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(tree, "id");

    if (!cJSON_IsNumber(number) || number->valuedouble < 0 ||
        number->valuedouble > (double)helper->last_id ||
        number->valuedouble != (double)(uint64_t)number->valuedouble)
        return false;
    out->id = (uint64_t)number->valuedouble;
    if (cJSON_IsString(cJSON_GetObjectItemCaseSensitive(tree, "sentence"))) {
        answer_failed(out, tree);
        if (out->id == 0) /* not about one request: the conversation is over */
            helper->broken = out->error;
        return true;
    }
    out->kind = HUB_ANSWER_DONE;
    out->body = cJSON_DetachItemFromObjectCaseSensitive(tree, "done");
    if (!out->body) {
        out->kind = HUB_ANSWER_PROGRESS;
        out->body = cJSON_DetachItemFromObjectCaseSensitive(tree, "progress");
    }
    return out->id && cJSON_IsObject(out->body);
}

/* One line: an answer, or a notice that is passed on (then the kind stays NONE). */
static void take_line(struct hub_helper *helper, struct hub_answer *out, const char *line,
                      size_t bytes)
{
    struct error ignored = { 0 };
    const char *notice;
    cJSON *tree = NULL;

    if (json_parse(&tree, line, bytes, 0, &ignored) || !cJSON_IsObject(tree)) {
        note_nonsense(helper, line, bytes);
        cJSON_Delete(tree);
        return;
    }
    notice = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, "notice"));
    if (notice) {
        char sentence[SENTENCE_BYTES];

        error_quote(sentence, sizeof(sentence), notice, strlen(notice));
        log_say(helper->log, LOG_NOTICE, "%s", sentence);
    } else if (!understand(helper, out, tree)) {
        hub_answer_release(out);
        note_nonsense(helper, line, bytes);
    }
    cJSON_Delete(tree);
}

int hub_helper_answer(struct hub_helper *helper, struct hub_answer *out, int timeout_ms,
                      struct error *err)
{
    int64_t end = helper_now_ms() + timeout_ms;

    *out = (struct hub_answer){ 0 };
    while (!helper->broken.code) {
        int left = timeout_ms;
        const char *line;
        size_t bytes;

        pass_talk(helper);
        if (lines_take(&helper->answers, &line, &bytes)) {
            take_line(helper, out, line, bytes);
            if (out->kind != HUB_ANSWER_NONE && !helper->broken.code)
                return 0;
            continue;
        }
        if (lines_overlong(&helper->answers)) {
            note_nonsense(helper, helper->answers.data, helper->answers.bytes);
            break;
        }
        if (helper->answers.ended) {
            note_end(helper);
            break;
        }
        if (timeout_ms >= 0) {
            int64_t now = helper_now_ms();

            if (now > end)
                return 0;
            left = (int)(end - now);
        }
        read_some(helper, left);
        if (timeout_ms == 0) /* once is enough, if it brought no line */
            end = helper_now_ms() - 1;
    }
    hub_answer_release(out);
    return helper_broken(helper, err);
}

void hub_answer_release(struct hub_answer *answer)
{
    cJSON_Delete(answer->body);
    *answer = (struct hub_answer){ 0 };
}

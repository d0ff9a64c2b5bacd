#include "hub/helper_internal.h"

#include "base/json.h"
#include "base/text.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HELLO_MS 120000 /* Python and its libraries from a cold disk */
#define SEND_MS 30000   /* it reads requests at all times */
#define STEP_MS 50      /* how long a cancellation may go unnoticed */

static int send_line(struct hub_helper *helper, const struct text *line, struct error *err)
{
    int64_t end = helper_now_ms() + SEND_MS;
    size_t sent = 0;

    while (sent < line->bytes) {
        struct pollfd fd = { .fd = helper->child.requests, .events = POLLOUT };
        ssize_t count = send(fd.fd, line->data + sent, line->bytes - sent, MSG_NOSIGNAL);

        if (count >= 0) {
            sent += (size_t)count;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return 0; /* it has ended; what it said before, and that it ended, are answers */
        } else if (errno != EAGAIN && errno != EINTR) {
            return error_set_errno(err, "a request to '%s'", helper->program);
        } else if (helper_now_ms() >= end) {
            error_set(&helper->broken, ERR_FAILED,
                      "the Hub helper '%s' has not read a request for %d s", helper->program,
                      SEND_MS / 1000);
            return helper_broken(helper, err);
        } else {
            poll(&fd, 1, SEND_MS);
        }
    }
    return 0;
}

/* The line of a request; the caller releases it, also after an error. */
static int make_line(struct text *line, uint64_t id, const char *verb, const char *members,
                     struct error *err)
{
    struct error reason = { 0 };

    text_addf(line, "{\"id\":%llu,\"do\":", (unsigned long long)id);
    text_add_json(line, verb, strlen(verb));
    text_addf(line, "%s%s}\n", *members ? "," : "", members);
    if (line->failed)
        return error_no_memory(err, "a request to the Hub helper");
    if (line->bytes > HUB_LINE_BYTES_MAX)
        return error_set(err, ERR_USAGE,
                         "a request to the Hub has %zu bytes, and the limit is %d (is the "
                         "description of the commit very long?)",
                         line->bytes, HUB_LINE_BYTES_MAX);
    if (memchr(line->data, '\n', line->bytes - 1) ||
        json_check(line->data, line->bytes - 1, 0, &reason))
        return error_set(err, ERR_USAGE, "a request to the Hub cannot be written: %s",
                         reason.code ? reason.text : "it has more than one line");
    return 0;
}

int hub_helper_check_request(const char *verb, const char *members, struct error *err)
{
    struct text line = { 0 };
    int status = make_line(&line, UINT64_MAX, verb, members, err);

    text_release(&line);
    return status;
}

int hub_helper_request(struct hub_helper *helper, const char *verb, const char *members,
                       uint64_t *id, struct error *err)
{
    struct text line = { 0 };
    int status;

    if (helper->broken.code)
        return helper_broken(helper, err);
    status = make_line(&line, helper->last_id + 1, verb, members, err);
    if (!status)
        status = send_line(helper, &line, err);
    if (!status)
        *id = ++helper->last_id;
    text_release(&line);
    return status;
}

uint64_t hub_answer_number(const struct hub_answer *answer, const char *name)
{
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(answer->body, name);

    /* A double is exact up to 2^53 bytes, which is 9 PB. */
    if (!cJSON_IsNumber(number) || !(number->valuedouble >= 0) ||
        number->valuedouble > 9007199254740992.0)
        return 0;
    return (uint64_t)number->valuedouble;
}

int helper_ask(struct hub_helper *helper, const char *verb, const char *members,
               const struct hub_waiter *waiter, int timeout_ms, cJSON **body, struct error *err)
{
    static const struct hub_waiter nobody = { 0 };
    const struct hub_waiter *who = waiter ? waiter : &nobody;
    int64_t end = helper_now_ms() + timeout_ms;
    struct hub_answer answer = { 0 };
    uint64_t id;
    int status = hub_helper_request(helper, verb, members, &id, err);

    while (!status) {
        status = hub_helper_answer(helper, &answer, STEP_MS, err);
        if (!status && answer.kind == HUB_ANSWER_DONE)
            break;
        if (!status && answer.kind == HUB_ANSWER_FAILED)
            status = error_set(err, answer.error.code, "%s", answer.error.text);
        else if (!status && who->cancelled && who->cancelled(who->context))
            status = error_set(err, ERR_CANCELLED, "cancelled");
        else if (!status && timeout_ms >= 0 && helper_now_ms() >= end)
            status = error_set(err, ERR_FAILED, "the Hub helper '%s' has not answered for %d s",
                               helper->program, timeout_ms / 1000);
        else if (!status && answer.kind == HUB_ANSWER_PROGRESS && who->progress)
            who->progress(who->context, hub_answer_number(&answer, "bytes"),
                          hub_answer_number(&answer, "total"));
        hub_answer_release(&answer);
    }
    if (status)
        return status;
    *body = answer.body;
    return 0;
}

int hub_helper_ask(struct hub_helper *helper, const char *verb, const char *members,
                   const struct hub_waiter *waiter, cJSON **body, struct error *err)
{
    return helper_ask(helper, verb, members, waiter, HUB_WAIT_FOREVER, body, err);
}

static void say_which(const struct hub_helper *helper, const cJSON *body)
{
    const char *version = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "helper"));
    const char *library = cJSON_GetStringValue(
        cJSON_GetObjectItemCaseSensitive(body, "huggingface_hub"));
    char quoted[2][64];

    version = version ? version : "?";
    library = library ? library : "?";
    log_say(helper->log, LOG_DETAIL, "Hub helper: '%s' %s, huggingface_hub %s, %s", helper->program,
            error_quote(quoted[0], sizeof(quoted[0]), version, strlen(version)),
            error_quote(quoted[1], sizeof(quoted[1]), library, strlen(library)),
            cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(body, "token")) ? "with a token"
                                                                          : "without a token");
}

/* The greeting: it tells where a token is, and is answered with the protocol that the helper
 * speaks. */
static int greet(struct hub_helper *helper, const struct hub_helper_options *options,
                 struct error *err)
{
    struct text members = { 0 };
    const cJSON *protocol;
    cJSON *body = NULL;
    int status;

    if (options->token_file) {
        text_adds(&members, "\"token_file\":");
        text_add_json(&members, options->token_file, strlen(options->token_file));
    }
    if (members.failed)
        status = error_no_memory(err, "a request to the Hub helper");
    else
        status = helper_ask(helper, "hello", options->token_file ? members.data : "",
                            options->waiter, HELLO_MS, &body, err);
    protocol = cJSON_GetObjectItemCaseSensitive(body, "protocol");
    if (!status && (!cJSON_IsNumber(protocol) || protocol->valueint != HUB_PROTOCOL))
        status = error_set(err, ERR_USAGE,
                           "the Hub helper '%s' speaks protocol %d and not %d; install the one "
                           "that belongs to this version of lorafold",
                           helper->program, cJSON_IsNumber(protocol) ? protocol->valueint : 0,
                           HUB_PROTOCOL);
    if (!status)
        say_which(helper, body);
    cJSON_Delete(body);
    text_release(&members);
    return status;
}

int hub_helper_start(struct hub_helper **out, const struct hub_helper_options *options,
                     struct error *err)
{
    struct hub_helper *helper = calloc(1, sizeof(*helper));
    int status;

    if (!helper)
        return error_no_memory(err, "the Hub helper");
    helper->log = options->log;
    status = helper_spawn(helper, options, err);
    if (!status)
        status = greet(helper, options, err);
    /* Python is there, and says that the module is not. */
    if (status == ERR_FAILED && helper->from_python &&
        strstr(helper->last_words, "No module named lorafold_hub"))
        status = helper_not_installed(helper, err);
    if (status) {
        hub_helper_close(helper);
        return status;
    }
    *out = helper;
    return 0;
}

void hub_helper_close(struct hub_helper *helper)
{
    if (!helper)
        return;
    child_end(&helper->child, HELPER_END_MS);
    free(helper);
}

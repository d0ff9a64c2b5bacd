#include "hub/helper_internal.h"

#include "base/json.h"
#include "base/text.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define DEFAULT_PROGRAM "lorafold-hub"
#define HELLO_MS 120000 /* Python and its libraries from a cold disk */
#define SEND_MS 30000   /* it reads requests at all times */

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

int hub_helper_request(struct hub_helper *helper, const char *verb, const char *members,
                       uint64_t *id, struct error *err)
{
    struct text line = { 0 };
    struct error reason = { 0 };
    int status;

    if (helper->broken.code)
        return helper_broken(helper, err);
    text_addf(&line, "{\"id\":%llu,\"do\":", (unsigned long long)helper->last_id + 1);
    text_add_json(&line, verb, strlen(verb));
    text_addf(&line, "%s%s}", *members ? "," : "", members);
    if (line.failed)
        status = error_no_memory(err, "a request to the Hub helper");
    else if (line.bytes + 1 > HUB_LINE_BYTES_MAX)
        status = error_set(err, ERR_USAGE,
                           "a request to the Hub has %zu bytes, and the limit is %d (is the "
                           "description of the commit very long?)",
                           line.bytes + 1, HUB_LINE_BYTES_MAX);
    else if (memchr(line.data, '\n', line.bytes) || json_check(line.data, line.bytes, 0, &reason))
        status = error_set(err, ERR_USAGE, "a request to the Hub cannot be written: %s",
                           reason.code ? reason.text : "it has more than one line");
    else {
        text_adds(&line, "\n");
        status = line.failed ? error_no_memory(err, "a request to the Hub helper")
                             : send_line(helper, &line, err);
    }
    if (!status)
        *id = ++helper->last_id;
    text_release(&line);
    return status;
}

/* The greeting: it tells where a token is, and is answered with the protocol that the helper
 * speaks. */
static int greet(struct hub_helper *helper, const char *token_file, struct error *err)
{
    struct hub_answer answer = { 0 };
    struct text members = { 0 };
    const cJSON *protocol;
    uint64_t id;
    int status;

    if (token_file) {
        text_adds(&members, "\"token_file\":");
        text_add_json(&members, token_file, strlen(token_file));
    }
    if (members.failed)
        status = error_no_memory(err, "a request to the Hub helper");
    else
        status = hub_helper_request(helper, "hello", token_file ? members.data : "", &id, err);
    if (!status)
        status = hub_helper_answer(helper, &answer, HELLO_MS, err);
    if (status)
        goto out;
    protocol = cJSON_GetObjectItemCaseSensitive(answer.body, "protocol");
    if (answer.kind == HUB_ANSWER_FAILED)
        status = error_set(err, answer.error.code, "%s", answer.error.text);
    else if (answer.kind == HUB_ANSWER_NONE)
        status = error_set(err, ERR_FAILED, "the Hub helper '%s' has not answered for %d s",
                           helper->program, HELLO_MS / 1000);
    else if (!cJSON_IsNumber(protocol) || protocol->valueint != HUB_PROTOCOL)
        status = error_set(err, ERR_USAGE,
                           "the Hub helper '%s' speaks protocol %d and not %d; install the one "
                           "that belongs to this version of lorafold",
                           helper->program, cJSON_IsNumber(protocol) ? protocol->valueint : 0,
                           HUB_PROTOCOL);

out:
    hub_answer_release(&answer);
    text_release(&members);
    return status;
}

int hub_helper_start(struct hub_helper **out, const struct hub_helper_options *options,
                     struct error *err)
{
    const char *variable = getenv("LORAFOLD_HUB");
    const char *program = options->program;
    struct hub_helper *helper = calloc(1, sizeof(*helper));
    int status;

    if (!helper)
        return error_no_memory(err, "the Hub helper");
    if (!program)
        program = variable && *variable ? variable : DEFAULT_PROGRAM;
    error_quote(helper->program, sizeof(helper->program), program, strlen(program));
    helper->log = options->log;
    status = child_start(&helper->child, program, err);
    if (status == ERR_USAGE)
        error_set(err, ERR_USAGE,
                  "the Hub needs the program '%s', which is not there or cannot be executed; "
                  "install it with: pip install lorafold",
                  helper->program);
    if (!status)
        status = greet(helper, options->token_file, err);
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

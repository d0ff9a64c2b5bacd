/*
 * helper.h - the conversation with lorafold-hub, which speaks to the Hub for us
 *
 * The helper is a program of its own (Python, on huggingface_hub) that reads
 * requests and writes answers, one JSON object a line; docs/HUB.md says which.
 * Several requests may be under way; each gets one last answer, and perhaps
 * progress before it.
 *
 *     hub_helper_start(&helper, &options, err);
 *     text_adds(&members, "\"repo\":");
 *     text_add_json(&members, repo, strlen(repo));
 *     hub_helper_request(helper, "fetch", members.data, &id, err);
 *     do {
 *         hub_answer_release(&answer);
 *         status = hub_helper_answer(helper, &answer, HUB_WAIT_FOREVER, err);
 *     } while (!status && answer.kind == HUB_ANSWER_PROGRESS);
 *
 * Tokens never pass through here: the helper finds them itself or reads the
 * file that is named.
 *
 * Threads: one at a time.  What the helper logs is said by the call that
 * reads it.  A child process is left behind by nobody: hub_helper_close() ends
 * it in bounded time, and it ends itself when this process dies.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef HUB_HELPER_H
#define HUB_HELPER_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HUB_PROTOCOL 1
#define HUB_LINE_BYTES_MAX 65536 /* of a request or an answer, with its end */
#define HUB_WAIT_FOREVER (-1)

struct cJSON;
struct hub_helper;

/* How the caller lives on while the helper is waited for. */
struct hub_waiter {
    bool (*cancelled)(void *context); /* asked several times a second; or NULL */
    void (*progress)(void *context, uint64_t bytes, uint64_t total); /* or NULL */
    void *context;
};

struct hub_helper_options {
    /*
     * The helper with its arguments, ending with NULL.  NULL: the program that $LORAFOLD_HUB names;
     * else "lorafold-hub" beside the program that runs; else "lorafold-hub" on the path; else
     * "python3 -m lorafold_hub".
     */
    const char *const *program;
    const char *token;      /* goes into the helper's environment; "": none; NULL: it finds one */
    const char *token_file; /* NULL: the helper looks where the Hugging Face tools do */
    const struct log *log;  /* may be NULL; must outlive the helper */
    const struct hub_waiter *waiter; /* may be NULL; for the start alone */
};

enum hub_answer_kind {
    HUB_ANSWER_NONE, /* the time is over; the requests go on */
    HUB_ANSWER_PROGRESS,
    HUB_ANSWER_DONE,
    HUB_ANSWER_FAILED /* `error` is what the helper says, code and sentence */
};

struct hub_answer {
    enum hub_answer_kind kind;
    uint64_t id;        /* of the request */
    struct cJSON *body; /* of progress and done: an object */
    struct error error;
};

/*
 * Start the helper and greet it; which one it is is said as a detail.  ERR_USAGE: it is not
 * installed, it speaks another protocol, or it cannot use the token file.  On success the caller
 * closes *out.
 */
int hub_helper_start(struct hub_helper **out, const struct hub_helper_options *options,
                     struct error *err);

/*
 * Ask for something.  `members` is JSON without the outer braces ("" for none).  ERR_USAGE if the
 * line is longer than HUB_LINE_BYTES_MAX or is no JSON.
 */
int hub_helper_request(struct hub_helper *helper, const char *verb, const char *members,
                       uint64_t *id, struct error *err);

/* Could such a request be sent?  To be asked before work that would be in vain. */
int hub_helper_check_request(const char *verb, const char *members, struct error *err);

/*
 * The next answer to any request, waiting at most timeout_ms.  A request that failed is no error
 * of this function: see HUB_ANSWER_FAILED.  ERR_FAILED: the helper ended or talks nonsense; it is
 * of no more use then, and every later call says the same.  The caller releases *out.
 */
int hub_helper_answer(struct hub_helper *helper, struct hub_answer *out, int timeout_ms,
                      struct error *err);
void hub_answer_release(struct hub_answer *answer);

/* A count in the body; 0 if it has none, or one that no file can have. */
uint64_t hub_answer_number(const struct hub_answer *answer, const char *name);

/*
 * Ask, and wait for the last answer to that, whose body is given to the caller; answers to other
 * requests must not be expected.  The error may be the helper's own, or ERR_CANCELLED: then the
 * request goes on and the helper is of no more use.
 */
int hub_helper_ask(struct hub_helper *helper, const char *verb, const char *members,
                   const struct hub_waiter *waiter, struct cJSON **body, struct error *err);

/* End the helper, at once if it does not end by itself; what is under way is given up. */
void hub_helper_close(struct hub_helper *helper);

#endif

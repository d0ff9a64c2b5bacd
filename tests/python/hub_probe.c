/*
 * For test_hub_program.py: a conversation with the real helper through hub/helper.h.
 * Arguments: TOKEN_FILE (or "") and then pairs VERB MEMBERS, one request after the other.
 * One line for each last answer: its body, or "CODE SENTENCE" and the end.
 */

#include "hub/helper.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

static void print_log(void *context, enum log_level level, const char *sentence)
{
    (void)context;
    fprintf(stderr, "%d %s\n", (int)level, sentence);
}

static int ask(struct hub_helper *helper, const char *verb, const char *members, struct error *err)
{
    struct hub_answer answer = { 0 };
    uint64_t id;
    int status = hub_helper_request(helper, verb, members, &id, err);

    do {
        hub_answer_release(&answer);
        if (!status)
            status = hub_helper_answer(helper, &answer, HUB_WAIT_FOREVER, err);
    } while (!status && answer.kind == HUB_ANSWER_PROGRESS);
    if (!status && answer.kind == HUB_ANSWER_FAILED) {
        *err = answer.error;
        status = err->code;
    } else if (!status) {
        char *body = cJSON_PrintUnformatted(answer.body);

        puts(body);
        free(body);
    }
    hub_answer_release(&answer);
    return status;
}

int main(int argc, char **argv)
{
    const struct log log = { .write = print_log };
    struct hub_helper_options options = { .log = &log };
    struct hub_helper *helper = NULL;
    struct error err = { 0 };
    int status;

    if (argc < 2)
        return 99;
    options.token_file = *argv[1] ? argv[1] : NULL;
    status = hub_helper_start(&helper, &options, &err);
    for (int i = 2; i + 1 < argc && !status; i += 2)
        status = ask(helper, argv[i], argv[i + 1], &err);
    if (status)
        printf("%d %s\n", status, err.text);
    hub_helper_close(helper);
    return status;
}

/* push_thread.c - the thread of a push: checks files, has them stored, has them committed */
#include "push_internal.h"

#include "base/array.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The next file, if one may be sent now. */
static bool take_file(struct push *push, struct push_send **send)
{
    *send = NULL;
    for (unsigned i = 0; i < PUSH_SENDS && !*send; i++) {
        if (!push->sends[i].used)
            *send = &push->sends[i];
    }
    pthread_mutex_lock(&push->mutex);
    if (push->giving_up || push->next_file == push->file_count)
        *send = NULL;
    if (*send)
        **send = (struct push_send){ .used = true, .file = push->files[push->next_file++] };
    pthread_mutex_unlock(&push->mutex);
    return *send != NULL;
}

static int keep_open(struct push *push, int fd, struct error *err)
{
    if (push->kept_count == push->kept_capacity) {
        int *more = array_grow(push->kept, &push->kept_capacity, sizeof(*more));

        if (!more) {
            close(fd);
            return error_no_memory(err, "the files of a push");
        }
        push->kept = more;
    }
    push->kept[push->kept_count++] = fd;
    return 0;
}

static void close_kept(struct push *push, int fd)
{
    for (size_t i = 0; i < push->kept_count; i++) {
        if (push->kept[i] == fd) {
            push->kept[i] = push->kept[--push->kept_count];
            close(fd);
            return;
        }
    }
}

/* Where the helper finds the file: by its own descriptor, or by that of its directory. */
static int add_path(struct push *push, struct push_send *send, struct text *out, struct error *err)
{
    const struct push_file *file = &send->file;
    struct text path = { 0 };
    int fd;

    if (push_open_file(push, file, &fd, err))
        return err->code;
    send->fd = fd;
    if (file->moves) {
        if (keep_open(push, fd, err))
            return err->code;
        text_addf(&path, "/proc/%ld/fd/%d", (long)getpid(), fd);
    } else {
        close(fd);
        send->fd = -1;
        text_addf(&path, "/proc/%ld/fd/%d/%s", (long)getpid(),
                  push->directories[push->directories[1] >= 0], file->name);
    }
    if (!path.failed)
        text_add_json(out, path.data, path.bytes);
    text_release(&path);
    return path.failed ? error_no_memory(err, "a path") : 0;
}

static int store(struct push *push, struct push_send *send, struct error *err)
{
    struct text members = { 0 };
    int status = push_check(push, &send->file, err);

    text_adds(&members, "\"path\":");
    text_add_json(&members, send->file.name, strlen(send->file.name));
    text_adds(&members, ",\"file\":");
    if (!status)
        status = add_path(push, send, &members, err);
    if (!status && members.failed)
        status = error_no_memory(err, "a request to the Hub helper");
    if (!status)
        status = hub_helper_request(push->helper, "store", members.data, &send->id, err);
    text_release(&members);
    return status;
}

static int commit(struct push *push, uint64_t *id, struct error *err)
{
    struct text members = { 0 };
    int status;

    push_add_commit(&members, &push->to);
    status = members.failed ? error_no_memory(err, "a request to the Hub helper")
                            : hub_helper_request(push->helper, "commit", members.data, id, err);
    text_release(&members);
    return status;
}

static struct push_send *find_send(struct push *push, uint64_t id)
{
    for (unsigned i = 0; i < PUSH_SENDS; i++) {
        if (push->sends[i].used && push->sends[i].id == id)
            return &push->sends[i];
    }
    return NULL;
}

static void note_bytes(struct push *push, struct push_send *send, uint64_t bytes)
{
    bytes = min_u64(bytes, send->file.bytes);
    if (bytes <= send->bytes)
        return;
    pthread_mutex_lock(&push->mutex);
    push->bytes_stored += bytes - send->bytes;
    pthread_mutex_unlock(&push->mutex);
    send->bytes = bytes;
}

/* It is safe on the Hub, or goes with the commit: then it stays, which only small ones do. */
static int file_stored(struct push *push, struct push_send *send, const cJSON *body,
                       struct error *err)
{
    bool stored = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(body, "stored"));
    const struct push_file file = send->file;
    int status = 0;

    note_bytes(push, send, file.bytes);
    send->used = false;
    if (stored && send->fd >= 0)
        close_kept(push, send->fd);
    if (stored && file.leaves && unlinkat(push->directories[0], file.name, 0) < 0)
        status = error_set_errno(err, "'%s' is stored on the Hub, but cannot be removed here",
                                 file.name);
    log_say(&push->own_log, LOG_DETAIL, stored ? "stored '%s'" : "'%s' goes with the commit",
            file.name);
    if (!file.leaves)
        return status;
    pthread_mutex_lock(&push->mutex);
    push->left++;
    pthread_mutex_unlock(&push->mutex);
    if (push->wake)
        push->wake(push->wake_context);
    return status;
}

static int take_report(struct push *push, const cJSON *body, struct error *err)
{
    struct lorafold_push_report *report = &push->report;
    const char *url = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "url"));
    const char *pull = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "pull_request"));

    if (!url)
        return error_set(
            err, ERR_FAILED,
            "the Hub helper says that the commit was made, but not which: look at '%s'",
            push->repo);
    error_quote(report->url, sizeof(report->url), url, strlen(url));
    error_quote(report->pull_request, sizeof(report->pull_request), pull ? pull : "",
                pull ? strlen(pull) : 0);
    snprintf(report->repo, sizeof(report->repo), "%s", push->repo);
    report->file_count = push->file_count;
    report->bytes = push->bytes_added;
    report->seconds = clock_seconds() - push->began;
    return 0;
}

/* What the helper says next, if it says something soon; *done when the commit is made. */
static int listen(struct push *push, uint64_t commit_id, bool *done, struct error *err)
{
    struct hub_answer answer = { 0 };
    struct push_send *send;
    int status = hub_helper_answer(push->helper, &answer, PUSH_STEP_MS, err);

    if (status)
        return status;
    send = find_send(push, answer.id);
    switch (answer.kind) {
    case HUB_ANSWER_NONE:
        break;
    case HUB_ANSWER_PROGRESS:
        if (send)
            note_bytes(push, send, hub_answer_number(&answer, "bytes"));
        break;
    case HUB_ANSWER_DONE:
        if (send)
            status = file_stored(push, send, answer.body, err);
        *done = commit_id && answer.id == commit_id;
        if (*done)
            status = take_report(push, answer.body, err);
        break;
    case HUB_ANSWER_FAILED:
        status = error_set(err, answer.error.code, "%s", answer.error.text);
        break;
    }
    hub_answer_release(&answer);
    return status;
}

static bool is_sending(const struct push *push)
{
    for (unsigned i = 0; i < PUSH_SENDS; i++) {
        if (push->sends[i].used)
            return true;
    }
    return false;
}

enum turn { TURN_WAIT, TURN_COMMIT, TURN_GIVE_UP };

/* Nothing is on its way: wait for what comes, but not for long. */
static enum turn wait_for_files(struct push *push)
{
    struct timespec until;
    enum turn turn = TURN_WAIT;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    pthread_mutex_lock(&push->mutex);
    if (!push->giving_up && !push->all_added && push->next_file == push->file_count)
        pthread_cond_timedwait(&push->changed, &push->mutex, &until);
    if (push->giving_up) {
        turn = TURN_GIVE_UP;
    } else if (push->all_added && push->next_file == push->file_count) {
        turn = TURN_COMMIT;
        push->committing = true;
    }
    pthread_mutex_unlock(&push->mutex);
    return turn;
}

bool push_is_given_up(struct push *push)
{
    bool given_up;

    pthread_mutex_lock(&push->mutex);
    given_up = push->giving_up;
    pthread_mutex_unlock(&push->mutex);
    return given_up;
}

static int work(struct push *push, struct error *err)
{
    uint64_t commit_id = 0;
    struct push_send *send;
    bool done = false;
    int status = 0;

    while (!status && !done) {
        if (push_is_given_up(push))
            return error_set(err, ERR_CANCELLED, "cancelled");
        if (take_file(push, &send))
            status = store(push, send, err);
        else if (commit_id || is_sending(push))
            status = listen(push, commit_id, &done, err);
        else if (wait_for_files(push) == TURN_COMMIT)
            status = commit(push, &commit_id, err);
    }
    return status;
}

void *push_thread_main(void *context)
{
    struct push *push = context;
    struct error err = { 0 };

    work(push, &err);
    hub_helper_close(push->helper); /* what is under way is given up */
    push->helper = NULL;
    pthread_mutex_lock(&push->mutex);
    push->error = err;
    push->ended = true;
    pthread_cond_broadcast(&push->changed);
    pthread_mutex_unlock(&push->mutex);
    if (err.code && push->wake)
        push->wake(push->wake_context);
    return NULL;
}

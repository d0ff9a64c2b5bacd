#include "push_internal.h"

#include "base/array.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTION_SHOWN_MAX 200u /* bytes */
#define WAIT_NANOSECONDS 100000000 /* between looks at a cancellation */

/* The log of the thread and of its helper: sentences wait for push_tell(). */
static void keep_message(void *context, enum log_level level, const char *sentence)
{
    struct push *push = context;
    char *copy = strdup(sentence);

    if (!copy)
        return;
    pthread_mutex_lock(&push->mutex);
    if (push->message_count == push->message_capacity) {
        struct push_message *more = array_grow(push->messages, &push->message_capacity,
                                               sizeof(*more));

        if (!more) {
            pthread_mutex_unlock(&push->mutex);
            free(copy);
            return;
        }
        push->messages = more;
    }
    push->messages[push->message_count++] = (struct push_message){ level, copy };
    pthread_cond_broadcast(&push->changed);
    pthread_mutex_unlock(&push->mutex);
    if (push->wake && level != LOG_DETAIL)
        push->wake(push->wake_context); /* so that it is said while nothing else happens */
}

void push_tell(struct push *push)
{
    struct push_message *messages;
    size_t count;

    pthread_mutex_lock(&push->mutex);
    messages = push->messages;
    count = push->message_count;
    push->messages = NULL;
    push->message_count = push->message_capacity = 0;
    pthread_mutex_unlock(&push->mutex);
    for (size_t i = 0; i < count; i++) {
        log_say(push->log, messages[i].level, "%s", messages[i].sentence);
        free(messages[i].sentence);
    }
    free(messages);
}

static void add_list(struct text *out, const char *name, const char *const *list, size_t count)
{
    text_addf(out, ",\"%s\":[", name);
    for (size_t i = 0; i < count; i++) {
        text_adds(out, i ? "," : "");
        text_add_json(out, list[i], strlen(list[i]));
    }
    text_adds(out, "]");
}

void push_add_commit(struct text *out, const struct lorafold_destination *to)
{
    const char *message = to->commit_message ? to->commit_message
                                             : "Upload a model made by lorafold";
    const char *description = to->commit_description ? to->commit_description : "";

    text_adds(out, "\"message\":");
    text_add_json(out, message, strlen(message));
    text_adds(out, ",\"description\":");
    text_add_json(out, description, strlen(description));
    add_list(out, "tags", to->tags, to->tag_count);
    add_list(out, "datasets", to->datasets, to->dataset_count);
}

/* The commit is the last request of all, and must not be refused then. */
static int check_commit(const struct lorafold_destination *to, struct error *err)
{
    struct text members = { 0 };
    int status;

    push_add_commit(&members, to);
    status = members.failed ? error_no_memory(err, "a request to the Hub helper")
                            : hub_helper_check_request("commit", members.data, err);
    text_release(&members);
    return status;
}

int push_check_destination(const struct lorafold_destination *to, const struct lorafold_hub *hub,
                           struct error *err)
{
    char quoted[QUOTED_BYTES];

    if (!hub_is_repo_name(to->repo) || strchr(to->repo, '@'))
        return error_set(err, ERR_USAGE,
                         "'%s' is not the name of a repository: it is org/name of letters, digits, "
                         "'-', '_' and '.'",
                         error_quote(quoted, sizeof(quoted), to->repo, strlen(to->repo)));
    if (to->create_pr && to->revision && strcmp(to->revision, "main") != 0)
        return error_set(err, ERR_USAGE,
                         "a pull request goes to main: give either --revision or --create-pr");
    if (to->commit_message && strspn(to->commit_message, " \t\r\n") == strlen(to->commit_message))
        return error_set(err, ERR_USAGE, "the message of the commit is empty");
    if (hub->offline || hub_is_offline())
        return error_set(err, ERR_USAGE, "offline (%s), and a push to '%s' asks the Hub",
                         hub->offline ? "--offline" : "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE",
                         to->repo);
    return check_commit(to, err);
}

struct waiting {
    struct push *push;
    struct hub_waiter waiter; /* of the remote */
};

/* While the caller's own thread waits, what is said is passed on. */
static bool is_cancelled(void *context)
{
    struct waiting *waiting = context;

    push_tell(waiting->push);
    return waiting->waiter.cancelled(waiting->waiter.context);
}

static int create(struct push *push, bool is_adapter, const struct hub_waiter *waiter,
                  struct error *err)
{
    const struct lorafold_destination *to = &push->to;
    struct text members = { 0 };
    const char *repo;
    cJSON *body = NULL;
    int status;

    text_adds(&members, "\"repo\":");
    text_add_json(&members, to->repo, strlen(to->repo));
    if (to->revision) {
        text_adds(&members, ",\"revision\":");
        text_add_json(&members, to->revision, strlen(to->revision));
    }
    text_addf(&members, ",\"private\":%s,\"create_pr\":%s,\"adapter\":%s",
              to->is_private ? "true" : "false", to->create_pr ? "true" : "false",
              is_adapter ? "true" : "false");
    status = members.failed
                 ? error_no_memory(err, "a request to the Hub helper")
                 : hub_helper_ask(push->helper, "create", members.data, waiter, &body, err);
    repo = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "repo"));
    if (!status)
        error_quote(push->repo, sizeof(push->repo), repo ? repo : to->repo,
                    strlen(repo ? repo : to->repo));
    cJSON_Delete(body);
    text_release(&members);
    return status;
}

int push_open(struct push **out, const struct lorafold_destination *to, bool is_adapter,
              struct remote *remote, struct error *err)
{
    struct push *push;
    struct remote own = *remote;
    struct waiting waiting = { .waiter = remote_waiter(remote) };
    const struct hub_waiter waiter = { .cancelled = is_cancelled, .context = &waiting };
    int status;

    if (push_check_destination(to, remote->hub, err))
        return err->code;
    push = calloc(1, sizeof(*push));
    if (!push)
        return error_no_memory(err, "a push");
    pthread_mutex_init(&push->mutex, NULL);
    pthread_cond_init(&push->changed, NULL);
    push->to = *to;
    push->log = remote->log;
    push->own_log = (struct log){ keep_message, push };
    push->directories[0] = push->directories[1] = -1;
    waiting.push = push;
    own.log = &push->own_log;
    own.helper = NULL;
    status = remote_start(&own, err);
    push->helper = own.helper;
    if (!status)
        status = create(push, is_adapter, &waiter, err);
    push_tell(push);
    if (status) {
        push_close(push);
        return status;
    }
    *out = push;
    return 0;
}

static int duplicate(int fd, int *out, struct error *err)
{
    *out = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return fd >= 0 && *out < 0 ? error_set_errno(err, "a directory to be pushed") : 0;
}

int push_begin(struct push *push, int directory_fd, int final_fd, void (*wake)(void *context),
               void *context, struct error *err)
{
    int reason;

    push->wake = wake;
    push->wake_context = context;
    push->began = clock_seconds();
    push->buffer = aligned_alloc(PAGE_BYTES, PLAN_BLOCK_BYTES);
    if (!push->buffer)
        return error_no_memory(err, "a push");
    if (duplicate(directory_fd, &push->directories[0], err) ||
        duplicate(final_fd, &push->directories[1], err))
        return err->code;
    reason = pthread_create(&push->thread, NULL, push_thread_main, push);
    errno = reason;
    if (reason)
        return error_set_errno(err, "the thread of a push cannot be started");
    push->has_thread = true;
    return 0;
}

int push_add(struct push *push, const struct push_file *file, struct error *err)
{
    int status = 0;

    pthread_mutex_lock(&push->mutex);
    if (push->file_count == push->file_capacity) {
        struct push_file *more = array_grow(push->files, &push->file_capacity, sizeof(*more));

        if (more)
            push->files = more;
        else
            status = error_no_memory(err, "the files of a push");
    }
    if (!status) {
        push->files[push->file_count++] = *file;
        push->bytes_added += file->bytes;
        pthread_cond_broadcast(&push->changed);
    }
    pthread_mutex_unlock(&push->mutex);
    return status;
}

int push_size_of(const struct push *push, const char *name, uint64_t *bytes, struct error *err)
{
    const struct push_file file = { .name = name };
    struct stat st;
    int fd;
    int status = push_open_file(push, &file, &fd, err);

    if (status)
        return status;
    if (fstat(fd, &st) < 0)
        status = error_set_errno(err, "'%s'", name);
    else
        *bytes = (uint64_t)st.st_size;
    close(fd);
    return status;
}

uint32_t push_left(struct push *push)
{
    uint32_t left;

    pthread_mutex_lock(&push->mutex);
    left = push->left;
    pthread_mutex_unlock(&push->mutex);
    return left;
}

bool push_has_failed(struct push *push)
{
    bool failed;

    pthread_mutex_lock(&push->mutex);
    failed = push->error.code != 0;
    pthread_mutex_unlock(&push->mutex);
    return failed;
}

static void show(const struct push *push, const struct remote *remote, uint64_t stored,
                 uint64_t total)
{
    const struct lorafold_progress progress = {
        .bytes_done = stored,
        .bytes_total = total,
        .seconds = clock_seconds() - push->began,
        .limit = LORAFOLD_LIMIT_UPLOAD,
        .file = push->repo,
    };

    if (remote->progress)
        remote->progress(remote->context, &progress);
}

/* Give up what is under way and wait for the thread. */
static void stop(struct push *push)
{
    if (!push->has_thread)
        return;
    pthread_mutex_lock(&push->mutex);
    push->giving_up = true;
    pthread_cond_broadcast(&push->changed);
    pthread_mutex_unlock(&push->mutex);
    pthread_join(push->thread, NULL);
    push->has_thread = false;
}

/* Was it cancelled before the Hub was asked to commit? */
static int say_cancelled(const struct push *push, struct error *err)
{
    if (push->committing)
        return error_set(err, ERR_CANCELLED,
                         "stopped while the commit was on its way: whether '%s' has it, is not "
                         "known",
                         push->repo);
    return error_set(err, ERR_CANCELLED, "stopped as asked: nothing of it is seen in '%s'",
                     push->repo);
}

int push_end(struct push *push, struct remote *remote, struct lorafold_push_report *report,
             struct error *err)
{
    const struct hub_waiter waiter = remote_waiter(remote);
    bool ended = false;
    bool cancelled = false;

    pthread_mutex_lock(&push->mutex);
    push->all_added = true;
    pthread_cond_broadcast(&push->changed);
    pthread_mutex_unlock(&push->mutex);
    while (!ended && !cancelled) {
        struct timespec until;
        uint64_t stored, total;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += WAIT_NANOSECONDS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&push->mutex);
        if (!push->ended && push->message_count == 0)
            pthread_cond_timedwait(&push->changed, &push->mutex, &until);
        ended = push->ended;
        stored = push->bytes_stored;
        total = push->bytes_added;
        pthread_mutex_unlock(&push->mutex);
        push_tell(push);
        show(push, remote, stored, total);
        cancelled = !ended && waiter.cancelled(waiter.context);
    }
    stop(push);
    push_tell(push);
    if (push->error.code == ERR_CANCELLED)
        return say_cancelled(push, err);
    if (push->error.code) {
        *err = push->error;
        return err->code;
    }
    *report = push->report;
    return 0;
}

void push_close(struct push *push)
{
    if (!push)
        return;
    stop(push);
    hub_helper_close(push->helper);
    push_tell(push);
    for (size_t i = 0; i < push->kept_count; i++)
        close(push->kept[i]);
    for (int i = 0; i < 2; i++) {
        if (push->directories[i] >= 0)
            close(push->directories[i]);
    }
    free(push->kept);
    free(push->files);
    free(push->buffer);
    pthread_cond_destroy(&push->changed);
    pthread_mutex_destroy(&push->mutex);
    free(push);
}

/* As one word of a shell. */
static void add_word(struct text *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_-./@%+=:,";

    text_adds(out, " ");
    if (*word && strspn(word, plain) == strlen(word)) {
        text_adds(out, word);
        return;
    }
    text_adds(out, "'");
    for (const char *c = word; *c; c++) {
        if (*c == '\'')
            text_adds(out, "'\\''");
        else
            text_add(out, c, 1);
    }
    text_adds(out, "'");
}

static void add_option(struct text *out, const char *option, const char *value)
{
    if (!value)
        return;
    text_addf(out, " %s", option);
    add_word(out, value);
}

void push_add_command(struct text *out, const char *directory,
                      const struct lorafold_destination *to, const struct lorafold_hub *hub)
{
    text_adds(out, "lorafold push");
    add_word(out, directory);
    add_word(out, to->repo);
    add_option(out, "--revision", to->revision);
    text_adds(out, to->create_pr ? " --create-pr" : "");
    text_adds(out, to->is_private ? " --private" : "");
    add_option(out, "--commit-message", to->commit_message);
    /* A long one would leave no room for the sentence that the command is part of. */
    if (to->commit_description && strlen(to->commit_description) <= DESCRIPTION_SHOWN_MAX)
        add_option(out, "--commit-description", to->commit_description);
    for (size_t i = 0; i < to->tag_count; i++)
        add_option(out, "--tag", to->tags[i]);
    for (size_t i = 0; i < to->dataset_count; i++)
        add_option(out, "--dataset", to->datasets[i]);
    add_option(out, "--token-file", hub->token_file);
}

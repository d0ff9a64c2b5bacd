#include "remote.h"

#include "base/clock.h"
#include "base/text.h"
#include "format/index.h"
#include "io/file.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INDEX_FILE "model.safetensors.index.json"

static bool is_there(const char *directory, const char *name)
{
    char path[4096];
    struct stat st;

    return snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path) &&
           stat(path, &st) == 0;
}

/* Are all shards there that an index names?  One that cannot be read is explained by its reader. */
static bool index_is_whole(const char *directory)
{
    struct index index = { 0 };
    struct error ignored = { 0 };
    char path[4096];
    char *json = NULL;
    size_t bytes;
    bool whole = true;

    snprintf(path, sizeof(path), "%s/" INDEX_FILE, directory);
    if (file_read_all(&json, &bytes, path, INDEX_BYTES_MAX, &ignored) == 0 &&
        index_parse(&index, json, bytes, &ignored) == 0) {
        for (size_t i = 0; i < index.shard_count && whole; i++)
            whole = is_there(directory, index.shard_names[i]);
    }
    index_release(&index);
    free(json);
    return whole;
}

/* A file of weights, or a checkpoint of a trainer, which holds one. */
static bool holds_weights(const char *name)
{
    return name[0] != '.' &&
           (text_ends_with(name, ".safetensors") || strcmp(name, "adapter_model.bin") == 0 ||
            strncmp(name, "checkpoint-", 11) == 0);
}

/*
 * Other tools leave snapshots that hold a part: a tokenizer loaded alone, a download that was
 * interrupted.
 */
static bool has_weights(const char *directory)
{
    DIR *stream = opendir(directory);
    const struct dirent *entry;
    bool any = false;
    bool whole = true;

    if (!stream)
        return false;
    while (whole && (entry = readdir(stream))) {
        if (!holds_weights(entry->d_name))
            continue;
        any = true;
        whole = is_there(directory, entry->d_name); /* no dangling link */
    }
    closedir(stream);
    if (whole && is_there(directory, INDEX_FILE))
        whole = index_is_whole(directory);
    return any && whole;
}

/* Weights of a kind that is not read: whoever opens them says what to do about it. */
static bool has_other_weights(const char *directory)
{
    static const char *const ends[] = { ".bin", ".pt", ".pth", ".gguf" };
    DIR *stream = opendir(directory);
    const struct dirent *entry;
    bool any = false;

    while (stream && (entry = readdir(stream))) {
        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
            any |= text_ends_with(entry->d_name, ends[i]);
    }
    if (stream)
        closedir(stream);
    return any;
}

static bool has_tokenizer(const char *directory)
{
    return is_there(directory, "tokenizer_config.json") || is_there(directory, "tokenizer.json") ||
           is_there(directory, "tokenizer.model");
}

static bool is_cancelled(void *context)
{
    const struct remote *remote = context;

    return (remote->cancel && *remote->cancel) || (remote->stop && atomic_load(remote->stop));
}

static void show(void *context, uint64_t bytes, uint64_t total)
{
    const struct remote *remote = context;
    const struct lorafold_progress progress = {
        .bytes_done = bytes,
        .bytes_total = total,
        .seconds = clock_seconds() - remote->started,
        .limit = LORAFOLD_LIMIT_DOWNLOAD,
        .file = remote->shown,
    };

    if (remote->progress && total)
        remote->progress(remote->context, &progress);
}

struct hub_waiter remote_waiter(struct remote *remote)
{
    return (struct hub_waiter){ .cancelled = is_cancelled, .progress = show, .context = remote };
}

int remote_start(struct remote *remote, struct error *err)
{
    const struct hub_waiter waiter = remote_waiter(remote);
    const struct hub_helper_options options = { .program = remote->hub->helper,
                                                .token = remote->hub->token,
                                                .token_file = remote->hub->token_file,
                                                .log = remote->log,
                                                .waiter = &waiter };

    return remote->helper ? 0 : hub_helper_start(&remote->helper, &options, err);
}

void remote_close(struct remote *remote)
{
    hub_helper_close(remote->helper);
    remote->helper = NULL;
}

/* The answer to `fetch` as a snapshot. */
static int take_snapshot(struct hub_snapshot *out, const cJSON *body, const char *repo,
                         const char *revision, struct error *err)
{
    const char *directory = cJSON_GetStringValue(
        cJSON_GetObjectItemCaseSensitive(body, "directory"));
    const char *commit = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "commit"));
    struct hub_snapshot found = { .repo = strdup(repo), .revision = strdup(revision) };
    struct stat st;

    if (directory && commit && stat(directory, &st) == 0 && S_ISDIR(st.st_mode)) {
        found.directory = strdup(directory);
        found.commit = strdup(commit);
    } else {
        error_set(err, ERR_FAILED, "the Hub helper says that '%s' was fetched, but not whereto",
                  repo);
        hub_snapshot_release(&found);
        return err->code;
    }
    if (!found.repo || !found.revision || !found.directory || !found.commit) {
        hub_snapshot_release(&found);
        return error_no_memory(err, "a path");
    }
    *out = found;
    return 0;
}

static int fetch(struct hub_snapshot *out, struct remote *remote, const char *name,
                 enum remote_need need, struct error *err)
{
    const char *at = strchr(name, '@');
    char *repo = at ? strndup(name, (size_t)(at - name)) : strdup(name);
    const struct hub_waiter waiter = remote_waiter(remote);
    struct text members = { 0 };
    cJSON *body = NULL;
    int status = 0;

    text_adds(&members, "\"repo\":");
    if (repo)
        text_add_json(&members, repo, strlen(repo));
    if (at) {
        text_adds(&members, ",\"revision\":");
        text_add_json(&members, at + 1, strlen(at + 1));
    }
    if (need == REMOTE_TOKENIZER)
        text_adds(&members, ",\"weights\":false");
    if (!repo || members.failed)
        status = error_no_memory(err, "a request to the Hub helper");
    if (!status)
        status = remote_start(remote, err);
    if (!status) {
        log_say(remote->log, LOG_NOTICE, "fetching '%s' from the Hub into the Hugging Face cache",
                name);
        remote->shown = name;
        remote->started = clock_seconds();
        status = hub_helper_ask(remote->helper, "fetch", members.data, &waiter, &body, err);
    }
    if (!status)
        status = take_snapshot(out, body, repo, at ? at + 1 : "main", err);
    cJSON_Delete(body);
    text_release(&members);
    free(repo);
    return status;
}

/* In the cache in part: what can be said about it when the rest may not be fetched. */
static int refuse_part(const struct hub_snapshot *found, enum remote_need need, const char *name,
                       struct error *err)
{
    return error_set(err, ERR_USAGE,
                     "'%s' is in the Hugging Face cache, but not with all of its %s ('%s'); fetch "
                     "them with: lorafold fetch %s",
                     found->repo, need == REMOTE_WEIGHTS ? "weights" : "tokenizer",
                     found->directory, name);
}

int remote_find(struct hub_snapshot *out, struct remote *remote, const char *name,
                enum remote_need need, struct error *err)
{
    bool offline = remote && (remote->hub->offline || hub_is_offline());
    struct hub_snapshot found = { 0 };
    bool absent = hub_cache_find(&found, name, err) != 0;

    if (absent && (err->code != ERR_USAGE || !hub_is_repo_name(name)))
        return err->code;
    if (!absent &&
        (need == REMOTE_WEIGHTS ? has_weights(found.directory) : has_tokenizer(found.directory))) {
        *out = found;
        return 0;
    }
    if (remote && !offline) {
        *err = (struct error){ 0 };
        if (fetch(out, remote, name, need, err) && !absent && err->code == ERR_USAGE)
            error_prefix(err, "'%s' is only in part in the Hugging Face cache", found.repo);
        hub_snapshot_release(&found);
        return err->code;
    }
    if (!absent && need == REMOTE_WEIGHTS && has_other_weights(found.directory)) {
        *out = found;
        return 0;
    }
    if (!absent)
        refuse_part(&found, need, name, err);
    hub_snapshot_release(&found);
    if (offline)
        error_prefix(err, "offline (%s)",
                     remote->hub->offline ? "--offline" : "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE");
    return err->code;
}

static void say(void *context, enum log_level level, const char *sentence)
{
    const struct lorafold_fetch_options *options = context;

    if (options->message)
        options->message(options->context, (enum lorafold_level)level, sentence);
}

void lorafold_fetch_options_init(struct lorafold_fetch_options *options)
{
    *options = (struct lorafold_fetch_options){ 0 };
}

int lorafold_fetch(const char *name, const struct lorafold_fetch_options *options, char **directory,
                   struct lorafold_error *err)
{
    struct lorafold_fetch_options copy = *options;
    const struct log log = { say, &copy };
    struct remote remote = { .hub = &copy.hub,
                             .log = &log,
                             .cancel = copy.cancel,
                             .progress = copy.progress,
                             .context = copy.context };
    struct hub_snapshot found = { 0 };
    struct error inner = { 0 };
    int status = remote_find(&found, &remote, name, REMOTE_WEIGHTS, &inner);

    remote_close(&remote);
    if (!status) {
        *directory = found.directory;
        found.directory = NULL;
    }
    hub_snapshot_release(&found);
    if (status && err) {
        err->code = inner.code;
        memcpy(err->text, inner.text, sizeof(err->text));
    }
    return status;
}

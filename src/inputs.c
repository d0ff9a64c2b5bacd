#include "merge.h"

#include "io/file.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define CONFIG_BYTES_MAX (16 * MIB)

void source_release(struct source *source)
{
    free(source->path);
    free(source->name);
    free(source->revision);
    *source = (struct source){ 0 };
}

char *path_last_component(const char *path)
{
    char resolved[PATH_MAX];
    const char *from = realpath(path, resolved) ? resolved : path;
    size_t bytes = strlen(from);
    const char *slash;

    while (bytes > 1 && from[bytes - 1] == '/')
        bytes--;
    slash = memrchr(from, '/', bytes);
    if (slash && slash + 1 < from + bytes)
        return strndup(slash + 1, (size_t)(from + bytes - slash - 1));
    return strndup(from, bytes);
}

int source_find(struct source *out, struct remote *remote, const char *text, const char *what,
                enum remote_need need, struct error *err)
{
    struct hub_snapshot snapshot = { 0 };
    struct stat st;

    if (text[0] == '\0')
        return error_set(err, ERR_USAGE, "the %s is an empty string", what);
    if (stat(text, &st) == 0 || errno != ENOENT || lstat(text, &st) == 0) {
        /* What is there, even as a dangling link, is meant; whoever opens it explains. */
        *out = (struct source){ .path = strdup(text), .name = path_last_component(text) };
    } else if (!hub_is_repo_name(text)) {
        return error_set(err, ERR_USAGE, "%s '%s': no such file or directory", what, text);
    } else {
        if (remote_find(&snapshot, remote, text, need, err)) {
            error_prefix(err, "%s '%s' is no path here", what, text);
            return err->code;
        }
        *out = (struct source){ .path = strdup(snapshot.directory),
                                .name = strdup(snapshot.repo),
                                .revision = strdup(snapshot.commit),
                                .from_hub = true };
        hub_snapshot_release(&snapshot);
        if (!out->revision) {
            source_release(out);
            return error_no_memory(err, what);
        }
    }
    if (!out->path || !out->name) {
        source_release(out);
        return error_no_memory(err, what);
    }
    return 0;
}

static int open_adapters(struct lorafold_merge *merge, struct error *err)
{
    const struct lorafold_merge_options *options = &merge->options;

    merge->adapters = calloc(options->adapter_count, sizeof(*merge->adapters));
    merge->adapter_sources = calloc(options->adapter_count, sizeof(*merge->adapter_sources));
    merge->plan_adapters = calloc(options->adapter_count, sizeof(*merge->plan_adapters));
    if (!merge->adapters || !merge->adapter_sources || !merge->plan_adapters)
        return error_no_memory(err, "the adapters");
    for (size_t i = 0; i < options->adapter_count; i++) {
        struct source *source = &merge->adapter_sources[i];

        if (!isfinite(options->adapters[i].weight))
            return error_set(err, ERR_USAGE, "the weight of adapter '%s' is not a finite number",
                             options->adapters[i].path);
        if (source_find(source, &merge->remote, options->adapters[i].path, "adapter",
                        REMOTE_WEIGHTS, err))
            return err->code;
        merge->adapter_count = i + 1;
        if (adapter_open(&merge->adapters[i], source->path, options->allow_unused, &merge->log,
                         err))
            return err->code;
        merge->plan_adapters[i] = (struct plan_adapter){ &merge->adapters[i],
                                                         options->adapters[i].weight };
    }
    return 0;
}

struct remote *base_remote(struct lorafold_merge *merge)
{
    return merge->options.plan_only || writes_adapter(merge) ? NULL : &merge->remote;
}

/* As `text` names it; before a base is fetched, its original is, where that is wanted. */
static int find_named_base(struct lorafold_merge *merge, const char *text, struct error *err)
{
    struct source *source = &merge->base->source;

    if (source_find(source, NULL, text, "base", REMOTE_WEIGHTS, err) != ERR_USAGE ||
        original_find_instead(merge, text, err) != ERR_USAGE)
        return err->code;
    *err = (struct error){ 0 };
    return source_find(source, base_remote(merge), text, "base", REMOTE_WEIGHTS, err);
}

static int find_base(struct lorafold_merge *merge, struct error *err)
{
    const struct adapter *first = &merge->adapters[0];

    if (merge->options.base)
        return find_named_base(merge, merge->options.base, err);
    if (!first->config.base_model || first->config.base_model[0] == '\0')
        return error_set(err, ERR_USAGE,
                         "adapter '%s' does not name its base: give BASE on the command line",
                         first->name);
    if (find_named_base(merge, first->config.base_model, err))
        error_prefix(err, "adapter '%s' names its base", first->name);
    return err->code;
}

static bool same_place(const char *x, const char *y)
{
    struct stat a;
    struct stat b;

    return stat(x, &a) == 0 && stat(y, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Is the base that the adapter names another than the one used?  Only where that can be known. */
static bool names_another_base(const struct source *base, const char *named)
{
    struct stat st;

    if (base->from_hub && hub_is_repo_name(named) && strncmp(named, "./", 2) != 0 &&
        named[0] != '/') {
        size_t bytes = strcspn(named, "@");

        return strlen(base->name) != bytes || strncasecmp(base->name, named, bytes) != 0;
    }
    if (stat(named, &st) == 0)
        return !same_place(named, base->path);
    return false;
}

static int check_identity(struct lorafold_merge *merge, struct error *err)
{
    const struct source *base = &merge->base->source;
    const char *given = base->from_hub ? base->name : base->path; /* names may be the same */

    for (size_t i = 0; i < merge->adapter_count; i++) {
        const struct adapter *adapter = &merge->adapters[i];
        const char *named = adapter->config.base_model;
        char quoted[QUOTED_BYTES];

        if (!named || !names_another_base(base, named))
            continue;
        error_quote(quoted, sizeof(quoted), named, strlen(named));
        if (merge->options.strict)
            return error_set(err, ERR_MISMATCH,
                             "adapter '%s' was made for '%s', the base given is '%s' (--strict)",
                             adapter->name, quoted, given);
        log_say(&merge->log, LOG_WARNING, "adapter '%s' was made for '%s', the base given is '%s'",
                adapter->name, quoted, given);
    }
    return 0;
}

static void warn_of_no_config(struct lorafold_merge *merge, const char *what)
{
    if (!writes_adapter(merge))
        log_say(&merge->log, LOG_WARNING,
                "%s, so the output will have none and cannot be loaded by name", what);
}

static int read_config(struct lorafold_merge *merge, struct error *err)
{
    char *path = NULL;
    struct stat st;
    int status = 0;

    merge->base->facts.tied = -1;
    if (!merge->base->model.directory) {
        warn_of_no_config(merge, "there is no config.json beside the base");
        return 0;
    }
    if (asprintf(&path, "%s/config.json", merge->base->model.directory) < 0)
        return error_no_memory(err, "a path");
    if (lstat(path, &st) < 0)
        warn_of_no_config(merge, "the base has no config.json");
    else
        status = file_read_all(&merge->base->config, &merge->base->config_bytes, path,
                               CONFIG_BYTES_MAX, err);
    if (!status && merge->base->config) {
        status = config_read_facts(&merge->base->facts, merge->base->config,
                                   merge->base->config_bytes, err);
        if (status)
            error_prefix(err, "'%s'", path);
    }
    free(path);
    return status;
}

/* Is the base quantised?  modelopt describes that in a file of its own. */
static int read_scheme(struct lorafold_merge *merge, struct error *err)
{
    char *path = NULL;
    char *extra = NULL;
    size_t extra_bytes = 0;
    struct stat st;
    int status = 0;

    if (merge->base->model.directory) {
        if (asprintf(&path, "%s/hf_quant_config.json", merge->base->model.directory) < 0)
            return error_no_memory(err, "a path");
        if (lstat(path, &st) == 0)
            status = file_read_all(&extra, &extra_bytes, path, CONFIG_BYTES_MAX, err);
        free(path);
    }
    if (!status)
        status = scheme_read_base(&merge->base->scheme, &merge->base->model, merge->base->config,
                                  merge->base->config_bytes, extra, extra_bytes, &merge->log, err);
    free(extra);
    return status;
}

static int open_base(struct lorafold_merge *merge, struct error *err)
{
    const struct lorafold_merge_options *options = &merge->options;

    /* A quantised base that is only named need not be there if its original is given. */
    if ((!options->original_base || options->base) && find_base(merge, err))
        return err->code;
    if (original_find(merge, err) ||
        model_open(&merge->base->model, merge->base->source.path, &merge->log, err) ||
        read_config(merge, err))
        return err->code;
    if ((!merge->base->original && check_identity(merge, err)) || read_scheme(merge, err))
        return err->code;
    return original_check(merge, err);
}

/* Does every adapter name the base that the first one of a batch named? */
static int check_named(const struct lorafold_merge *merge, struct error *err)
{
    for (size_t i = 0; i < merge->adapter_count; i++) {
        const struct adapter *adapter = &merge->adapters[i];
        const char *named = adapter->config.base_model;
        char quoted[QUOTED_BYTES];

        if (named && (strcmp(named, merge->base->named) == 0 ||
                      (named[0] && !names_another_base(&merge->base->source, named))))
            continue;
        if (!named)
            named = "";
        return error_set(err, ERR_MISMATCH,
                         "adapter '%s' names the base '%s', and the base that is open is '%s': "
                         "give BASE to use one for all",
                         adapter->name, error_quote(quoted, sizeof(quoted), named, strlen(named)),
                         merge->base->source.name);
    }
    return 0;
}

/* A base that another output of the batch has opened. */
static int use_open_base(struct lorafold_merge *merge, struct error *err)
{
    if (merge->base->named && check_named(merge, err))
        return err->code;
    if (!merge->base->original && check_identity(merge, err))
        return err->code;
    return original_check(merge, err);
}

static int open_new_base(struct lorafold_merge *merge, struct error *err)
{
    const char *named = merge->adapters[0].config.base_model;

    merge->base->refused = false;
    if (open_base(merge, err)) {
        base_release(merge->base);
        merge->base->refused = true;
        return err->code;
    }
    if (!merge->options.base && !merge->options.original_base && named) {
        merge->base->named = strdup(named);
        if (!merge->base->named)
            return error_no_memory(err, "a name");
    }
    return 0;
}

/* The base of an adapter that stays one, which is complete without it. */
static int open_named_base(struct lorafold_merge *merge, struct error *err)
{
    struct error inner = { 0 };
    int status = open_new_base(merge, &inner);

    if (status == 0)
        return 0;
    if (status != ERR_USAGE && status != ERR_FORMAT)
        return error_set(err, status, "%s", inner.text);
    log_say(&merge->log, LOG_NOTICE,
            "the adapter is not checked against its base, and no tokenizer files are taken from "
            "there: %s",
            inner.text);
    return 0;
}

void base_release(struct base *base)
{
    free(base->config);
    scheme_release(&base->scheme);
    model_release(&base->model);
    source_release(&base->source);
    free(base->named);
    *base = (struct base){ 0 };
}

static int find_tokenizer(struct lorafold_merge *merge, struct error *err)
{
    const char *given = merge->options.tokenizer;
    struct stat st;

    if (!given)
        return 0;
    if ((stat(given, &st) == 0 && !S_ISDIR(st.st_mode)) ||
        (stat(given, &st) < 0 && !hub_is_repo_name(given)))
        return error_set(err, ERR_USAGE, "--tokenizer '%s' is not a directory", given);
    return source_find(&merge->tokenizer, &merge->remote, given, "--tokenizer", REMOTE_TOKENIZER,
                       err);
}

/* Between two steps; what waits for the Hub looks by itself. */
static int check_cancelled(const struct lorafold_merge *merge, struct error *err)
{
    if (merge->options.cancel && *merge->options.cancel)
        return error_set(err, ERR_CANCELLED, "cancelled");
    return 0;
}

int inputs_open(struct lorafold_merge *merge, struct error *err)
{
    int status;

    if (merge->options.adapter_count == 0)
        return error_set(err, ERR_USAGE, "no adapter is given");
    merge->remote = (struct remote){ .hub = &merge->options.hub,
                                     .log = &merge->log,
                                     .cancel = merge->options.cancel,
                                     .progress = merge->options.progress,
                                     .context = merge->options.context };
    status = open_adapters(merge, err);
    if (!status)
        status = find_tokenizer(merge, err);
    if (!status)
        status = check_cancelled(merge, err);
    if (!status && merge->base->source.path)
        status = use_open_base(merge, err);
    else if (!status)
        status = writes_adapter(merge) && !merge->options.base ? open_named_base(merge, err)
                                                               : open_new_base(merge, err);
    if (!status)
        status = check_cancelled(merge, err);
    remote_close(&merge->remote);
    return status;
}

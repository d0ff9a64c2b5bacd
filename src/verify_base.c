/* verify_base.c - the base that an output shares bytes with, found and known again */
#include "merge.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The directory of this name beside OUT, as far as there is one. */
static char *beside(const char *directory, const char *name)
{
    char real[PATH_MAX];
    char *slash;
    char *path;
    struct stat st;

    if (!name || strchr(name, '/') || !realpath(directory, real))
        return NULL;
    slash = strrchr(real, '/');
    if (asprintf(&path, "%.*s/%s", (int)(slash - real), real, name) < 0)
        return NULL;
    if (stat(path, &st) == 0)
        return path;
    free(path);
    return NULL;
}

/* Where the manifest says that the base is: in the cache, or else it has no place but OUT's own. */
static int find_named(struct source *out, const struct output_files *files, const char *directory,
                      struct error *err)
{
    char quoted[QUOTED_BYTES] = "";
    char *path = NULL;
    int status;

    if (files->base_name && files->base_revision) {
        if (asprintf(&path, "%s@%s", files->base_name, files->base_revision) < 0)
            path = NULL;
    } else {
        path = beside(directory, files->base_name);
    }
    if (path) {
        status = source_find(out, NULL, path, "base", REMOTE_WEIGHTS, err);
        free(path);
        return status;
    }
    if (files->base_name)
        error_quote(quoted, sizeof(quoted), files->base_name, strlen(files->base_name));
    return error_set(err, ERR_USAGE,
                     "'%s' does not say where its base '%s' is, and it is not beside it: give it "
                     "with --deep BASE",
                     directory, quoted);
}

static int another_base(const char *path, const char *shard, const char *what, struct error *err)
{
    return error_set(err, ERR_USAGE,
                     "'%s' is not the base that the output was made from, or has changed since: "
                     "its '%s' %s",
                     path, shard, what);
}

/* The shard of the base that the manifest means; it has that size and header. */
static int find_shard(const struct model_shard **out, const struct model *model,
                      const struct output_shard *wanted, const char *path, struct error *err)
{
    char what[96];

    for (size_t i = 0; i < model->shard_count; i++) {
        const struct model_shard *shard = &model->shards[i];

        if (strcmp(shard->name, wanted->name) != 0)
            continue;
        snprintf(what, sizeof(what), "has %" PRIu64 " bytes, not %" PRIu64, shard->identity.bytes,
                 wanted->bytes);
        if (shard->identity.bytes != wanted->bytes)
            return another_base(path, wanted->name, what, err);
        if (memcmp(shard->header_digest, wanted->header.half, sizeof(shard->header_digest)) != 0)
            return another_base(path, wanted->name, "has another header", err);
        *out = shard;
        return 0;
    }
    return another_base(path, wanted->name, "is missing", err);
}

/* Of the shards that clones are from; a base may have lost others. */
static int take_paths(char **paths, const struct output_files *files, const struct model *model,
                      const char *path, struct error *err)
{
    for (size_t i = 0; i < files->count; i++) {
        for (size_t c = 0; c < files->list[i].clone_count; c++) {
            uint64_t index = files->list[i].clones[c].shard;
            const struct model_shard *shard = NULL;

            if (paths[index])
                continue;
            if (find_shard(&shard, model, &files->shards[index], path, err))
                return err->code;
            paths[index] = strdup(shard->path);
            if (!paths[index])
                return error_no_memory(err, "the shards of the base");
        }
    }
    return 0;
}

int verify_base_open(struct verify_base *out, const struct output_files *files,
                     const char *directory, const char *given, struct error *err)
{
    struct verify_base base = { .shard_count = files->shard_count };
    struct source source = { 0 };
    struct model model = { 0 };
    int status;

    base.paths = calloc(files->shard_count + 1, sizeof(*base.paths));
    if (!base.paths)
        return error_no_memory(err, "the shards of the base");
    status = given ? source_find(&source, NULL, given, "base", REMOTE_WEIGHTS, err)
                   : find_named(&source, files, directory, err);
    if (!status) {
        status = model_open(&model, source.path, NULL, err);
        if (status)
            error_prefix(err, "cannot compare with the base '%s'", source.path);
    }
    if (!status)
        status = take_paths(base.paths, files, &model, source.path, err);
    model_release(&model);
    if (status)
        verify_base_close(&base);
    else
        *out = base;
    source_release(&source);
    return status;
}

void verify_base_close(struct verify_base *base)
{
    for (size_t i = 0; base->paths && i < base->shard_count; i++)
        free(base->paths[i]);
    free(base->paths);
    *base = (struct verify_base){ 0 };
}

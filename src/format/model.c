#include "format/model.h"

#include "base/bytes.h"
#include "base/text.h"
#include "format/index.h"
#include "format/model_files.h"
#include "format/model_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_QUOTED_BYTES 512

void model_release(struct model *model)
{
    for (size_t i = 0; i < model->shard_count; i++) {
        free(model->shards[i].name);
        free(model->shards[i].path);
        st_header_release(&model->shards[i].header);
    }
    for (size_t i = 0; i < model->ignored_count; i++)
        free(model->ignored[i]);
    free(model->ignored);
    free(model->shards);
    free(model->directory);
    free(model->by_name);
    *model = (struct model){ 0 };
}

static char *join_path(const char *directory, const char *name)
{
    size_t length = strlen(directory);
    struct text path = { 0 };

    text_adds(&path, directory);
    if (length && directory[length - 1] != '/')
        text_add(&path, "/", 1);
    text_adds(&path, name);
    return text_take(&path);
}

/* Read the header of the next shard. */
static int add_shard(struct model *model, const char *name, const char *path, struct error *err)
{
    struct model_shard shard = { .name = strdup(name), .path = strdup(path) };
    int status;

    if (!shard.name || !shard.path) {
        free(shard.name);
        free(shard.path);
        return error_no_memory(err, "the names of shards");
    }
    status = st_header_read(&shard.header, path, NULL, err);
    if (!status && !add_u64(model->data_bytes, shard.header.data_bytes, &model->data_bytes))
        status = error_set(err, ERR_FORMAT, "the shards together have 2^64 bytes or more");
    if (status) {
        st_header_release(&shard.header);
        free(shard.name);
        free(shard.path);
        return status;
    }
    shard.identity = shard.header.identity;
    shard.header_digest[0] = shard.header.digest[0];
    shard.header_digest[1] = shard.header.digest[1];
    model->tensor_count += shard.header.tensor_count;
    model->shards[model->shard_count++] = shard;
    return 0;
}

/* Is something at this path, be it a dangling link? */
static bool is_there(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

/* A shard that the index names and nobody fetched is the usual damage: say how many. */
static int check_shards_are_there(char *const *paths, const struct index *index, struct error *err)
{
    char quoted[QUOTED_BYTES];
    size_t missing = 0;
    size_t first = 0;

    for (size_t i = index->shard_count; i-- > 0;) {
        if (!is_there(paths[i])) {
            missing++;
            first = i;
        }
    }
    if (missing == 0)
        return 0;
    return error_set(err, ERR_FORMAT,
                     "the index names %zu shards, but %zu of them are not there, the first is '%s'",
                     index->shard_count, missing,
                     error_quote(quoted, sizeof(quoted), index->shard_names[first],
                                 strlen(index->shard_names[first])));
}

static int open_shards(struct model *model, const struct index *index, struct error *err)
{
    char **paths = calloc(index->shard_count, sizeof(*paths));
    int status = 0;

    model->shards = calloc(index->shard_count, sizeof(*model->shards));
    if (!paths || !model->shards) {
        free(paths);
        return error_no_memory(err, "the shards");
    }
    for (size_t i = 0; i < index->shard_count; i++) {
        paths[i] = join_path(model->directory, index->shard_names[i]);
        if (!paths[i]) {
            status = error_no_memory(err, "the names of shards");
            goto out;
        }
    }
    status = check_shards_are_there(paths, index, err);
    for (size_t i = 0; !status && i < index->shard_count; i++)
        status = add_shard(model, index->shard_names[i], paths[i], err);
out:
    for (size_t i = 0; i < index->shard_count; i++)
        free(paths[i]);
    free(paths);
    return status;
}

static int open_index(struct model *model, struct error *err)
{
    char *path = join_path(model->directory, MODEL_INDEX_FILE);
    char quoted[PATH_QUOTED_BYTES];
    struct index index = { 0 };
    char *json = NULL;
    size_t json_bytes;
    int status;

    if (!path)
        return error_no_memory(err, "the name of the index");
    model->has_index = true;
    status = file_read_all(&json, &json_bytes, path, INDEX_BYTES_MAX, err);
    if (status)
        goto out;
    error_quote(quoted, sizeof(quoted), path, strlen(path));
    status = index_parse(&index, json, json_bytes, err);
    free(json);
    if (status) {
        error_prefix(err, "'%s'", quoted);
        goto out;
    }
    status = open_shards(model, &index, err);
    if (!status)
        status = model_sort_tensors(model, err);
    if (!status)
        status = model_compare_index(model, &index, err);
out:
    index_release(&index);
    free(path);
    return status;
}

static int open_one(struct model *model, const char *name, const char *path, struct error *err)
{
    int status;

    model->shards = calloc(1, sizeof(*model->shards));
    if (!model->shards)
        return error_no_memory(err, "the shards");
    status = add_shard(model, name, path, err);
    return status ? status : model_sort_tensors(model, err);
}

static int compare_name_to_shard(const void *name, const void *shard)
{
    return strcmp(name, ((const struct model_shard *)shard)->name);
}

/* Shards are sorted by name. */
static bool has_shard(const struct model *model, const char *name)
{
    return model->shards && bsearch(name, model->shards, model->shard_count, sizeof(*model->shards),
                                    compare_name_to_shard) != NULL;
}

static int list_ignored(struct model *model, const struct weight_files *files,
                        const struct log *log, struct error *err)
{
    char quoted[QUOTED_BYTES];

    model->ignored = calloc(files->count + 1, sizeof(*model->ignored));
    if (!model->ignored)
        return error_no_memory(err, "the names of files");
    for (size_t i = 0; i < files->count; i++) {
        const char *name = files->files[i].name;

        if (has_shard(model, name))
            continue;
        model->ignored[model->ignored_count] = strdup(name);
        if (!model->ignored[model->ignored_count])
            return error_no_memory(err, "the names of files");
        model->ignored_count++;
        log_say(log, LOG_DETAIL, "'%s' is not part of the base: neither read nor copied",
                error_quote(quoted, sizeof(quoted), name, strlen(name)));
    }
    if (model->has_index && files->has_model && !has_shard(model, MODEL_FILE))
        log_say(log, LOG_WARNING,
                "the base has both " MODEL_INDEX_FILE " and a " MODEL_FILE
                " that it does not name; the index is followed, transformers would load the other");
    return 0;
}

static int open_file_of_directory(struct model *model, const char *name, struct error *err)
{
    char *path = join_path(model->directory, name);
    int status;

    if (!path)
        return error_no_memory(err, "the name of the shard");
    status = open_one(model, name, path, err);
    free(path);
    return status;
}

static int open_directory(struct model *model, const char *path, const struct log *log,
                          struct error *err)
{
    struct weight_files files = { 0 };
    int status;

    model->directory = strdup(path);
    if (!model->directory)
        return error_no_memory(err, "the name of the base");
    status = weight_files_scan(&files, path, err);
    if (status)
        return status;
    if (files.has_index) {
        status = open_index(model, err);
    } else if (files.has_model) {
        status = open_file_of_directory(model, MODEL_FILE, err);
    } else if (files.counts[WEIGHT_SAFETENSORS] == 1) {
        status = open_file_of_directory(model, weight_files_first(&files, WEIGHT_SAFETENSORS), err);
    } else {
        status = weight_files_refuse(&files, path, err);
        goto out;
    }
    if (!status)
        status = list_ignored(model, &files, log, err);
out:
    weight_files_release(&files);
    return status;
}

/* The directory of the file, if it is a model's. */
static int find_directory(struct model *model, const char *path, const char *name,
                          const struct log *log, struct error *err)
{
    struct weight_files files = { 0 };
    char *directory = name == path ? strdup(".") : strndup(path, (size_t)(name - path));
    char *config = directory ? join_path(directory, "config.json") : NULL;
    bool found;
    int status;

    if (!config) {
        free(directory);
        return error_no_memory(err, "the name of the base");
    }
    found = access(config, F_OK) == 0;
    free(config);
    if (!found) {
        free(directory);
        return 0;
    }
    model->directory = directory;
    status = weight_files_scan(&files, directory, err);
    if (!status)
        status = list_ignored(model, &files, log, err);
    weight_files_release(&files);
    return status;
}

static int open_file(struct model *model, const char *path, const struct log *log,
                     struct error *err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    int status = weight_file_refuse(path, name, err);

    if (!status)
        status = open_one(model, name, path, err);
    if (!status)
        status = find_directory(model, path, name, log, err);
    return status;
}

int model_open(struct model *out, const char *path, const struct log *log, struct error *err)
{
    struct model model = { 0 };
    struct stat st = { 0 };
    int status = 0;

    if (stat(path, &st) < 0) { /* file_open_input() knows all the reasons */
        struct file file = FILE_CLOSED;

        status = file_open_input(&file, path, FILE_DIRECT_OFF, err);
        file_close(&file);
    }
    if (status)
        return status;
    if (S_ISDIR(st.st_mode))
        status = open_directory(&model, path, log, err);
    else
        status = open_file(&model, path, log, err);
    if (status) {
        /* What lies in a directory that is there is not the caller's mistake. */
        if (status == ERR_USAGE && S_ISDIR(st.st_mode))
            status = err->code = ERR_FORMAT;
        model_release(&model);
        return status;
    }
    *out = model;
    return 0;
}

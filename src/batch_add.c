/* batch_add.c - the outputs of a batch: what they are called, and where adapters are found */
#include "batch.h"

#include "adapter/directory.h"
#include "base/array.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* What stands beside an output while it is made (io/outdir.h). */
static const char *const taken_endings[] = { ".partial", ".lorafold-old" };

/* What would make the directory for all look like a model, and its list. */
static const char *const taken_names[] = { MANIFEST_NAME, "config.json", BATCH_LIST_NAME };

/* Directories below each other in which adapters are looked for. */
#define DEPTH_MAX 8

void *batch_keep(struct lorafold_batch *batch, const void *data, size_t bytes)
{
    void **more = array_next(batch->kept, batch->kept_count, &batch->kept_capacity, sizeof(*more));
    void *copy;

    if (!more)
        return NULL;
    batch->kept = more;
    copy = malloc(bytes + 1);
    if (!copy)
        return NULL;
    memcpy(copy, data, bytes);
    ((char *)copy)[bytes] = '\0';
    batch->kept[batch->kept_count++] = copy;
    return copy;
}

char *batch_keep_text(struct lorafold_batch *batch, const char *text)
{
    return batch_keep(batch, text, strlen(text));
}

int batch_check_name(const char *name, struct error *err)
{
    size_t bytes = strlen(name);
    char quoted[QUOTED_BYTES];
    size_t length = 1;

    error_quote(quoted, sizeof(quoted), name, bytes);
    for (size_t i = 0; i < bytes && length; i += length) {
        length = text_utf8_length(name + i, bytes - i);
        if (name[i] == '/' || name[i] == '\\' || (unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            length = 0;
    }
    if (bytes == 0 || !length || name[0] == '.')
        return error_set(err, ERR_USAGE,
                         "'%s' cannot be the name of an output: that is one directory's name, not "
                         "empty, without '/', '\\' and control characters, in UTF-8, and with no "
                         "'.' in front",
                         quoted);
    for (size_t i = 0; i < sizeof(taken_endings) / sizeof(taken_endings[0]); i++) {
        size_t end = strlen(taken_endings[i]);

        if (bytes >= end && strcmp(name + bytes - end, taken_endings[i]) == 0)
            return error_set(err, ERR_USAGE,
                             "'%s' cannot be the name of an output: what ends in '%s' stands "
                             "beside outputs while they are made",
                             quoted, taken_endings[i]);
    }
    for (size_t i = 0; i < sizeof(taken_names) / sizeof(taken_names[0]); i++) {
        if (strcasecmp(name, taken_names[i]) == 0)
            return error_set(err, ERR_USAGE,
                             "'%s' cannot be the name of an output: a file is called so", quoted);
    }
    if (bytes + sizeof(".lorafold-old") > NAME_MAX)
        return error_set(err, ERR_USAGE, "'%s' is too long for the name of an output: %zu bytes",
                         quoted, bytes);
    return 0;
}

/* What an adapter is called: a directory's name, or that of a repository without its owner. */
static char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *from = slash ? slash + 1 : path;
    struct stat st;

    if (stat(path, &st) == 0 || !hub_is_repo_name(path))
        return path_last_component(path);
    return strndup(from, strcspn(from, "@"));
}

static int check_free(const struct lorafold_batch *batch, const char *name, struct error *err)
{
    char quoted[QUOTED_BYTES];

    for (size_t i = 0; i < batch->count; i++) {
        if (strcmp(batch->outputs[i].name, name) != 0)
            continue;
        return error_set(err, ERR_USAGE,
                         "two outputs would be called '%s': give them names with --jobs",
                         error_quote(quoted, sizeof(quoted), name, strlen(name)));
    }
    return 0;
}

/* What is the same for all outputs. */
static struct lorafold_merge_options complete_options(const struct lorafold_batch *batch,
                                                      const struct lorafold_merge_options *from)
{
    struct lorafold_merge_options options = batch->options;

    options.adapters = from->adapters;
    options.adapter_count = from->adapter_count;
    options.save_method = from->save_method;
    options.quant_type = from->quant_type;
    options.single_quant = from->single_quant;
    options.skip = from->skip;
    options.skip_count = from->skip_count;
    options.dtype = from->dtype;
    options.tied = from->tied;
    options.b_layout = from->b_layout;
    options.max_shard_bytes = from->max_shard_bytes;
    options.tokenizer = from->tokenizer;
    options.safe_serialization = from->safe_serialization;
    options.variant = from->variant;
    options.allow_unused = from->allow_unused;
    options.allow_nonfinite = from->allow_nonfinite;
    return options;
}

int batch_add(struct lorafold_batch *batch, const char *name,
              const struct lorafold_merge_options *options, struct error *err)
{
    struct batch_output *more, *output;
    char *own = name ? strdup(name) : NULL;
    char *kept;

    if (batch->opened)
        return error_set(err, ERR_USAGE, "outputs are added before the batch is opened");
    if (options->adapter_count == 0)
        return error_set(err, ERR_USAGE, "no adapter is given");
    if (!name)
        own = name_of(options->adapters[0].path);
    kept = own ? batch_keep_text(batch, own) : NULL;
    free(own);
    if (!kept)
        return error_no_memory(err, "the name of an output");
    if (batch_check_name(kept, err) || check_free(batch, kept, err))
        return err->code;
    more = array_next(batch->outputs, batch->count, &batch->capacity, sizeof(*more));
    if (!more)
        return error_no_memory(err, "the outputs");
    batch->outputs = more;
    output = &batch->outputs[batch->count++];
    *output = (struct batch_output){ .batch = batch,
                                     .name = kept,
                                     .options = complete_options(batch, options) };
    return 0;
}

/* ---- directories ---- */

struct found {
    char **paths;
    size_t count;
    size_t capacity;
};

static int compare_paths(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void found_release(struct found *found)
{
    for (size_t i = 0; i < found->count; i++)
        free(found->paths[i]);
    free(found->paths);
}

/* The directories in a directory, sorted; links are followed, hidden ones passed over. */
static int list_directories(struct found *out, const char *directory, struct error *err)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    int status = 0;

    if (!dir)
        return error_set_errno(err, "cannot list '%s'", directory);
    while (!status && (errno = 0, entry = readdir(dir))) {
        char **more;
        char *path = NULL;
        struct stat st;

        if (entry->d_name[0] == '.')
            continue;
        more = array_next(out->paths, out->count, &out->capacity, sizeof(*more));
        if (more)
            out->paths = more;
        if (!more || asprintf(&path, "%s/%s", directory, entry->d_name) < 0)
            status = error_no_memory(err, "the list of adapters");
        else if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
            free(path);
        else
            out->paths[out->count++] = path;
    }
    if (!status && errno)
        status = error_set_errno(err, "cannot list '%s'", directory);
    closedir(dir);
    if (!status && out->count)
        qsort(out->paths, out->count, sizeof(*out->paths), compare_paths);
    return status;
}

static bool holds(const char *directory, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    return snprintf(path, sizeof(path), "%s/%s", directory, name) < (int)sizeof(path) &&
           stat(path, &st) == 0;
}

/* Does it look like an adapter, a broken one as well? */
static bool is_adapter(const char *directory)
{
    return holds(directory, ADAPTER_CONFIG_FILE) || holds(directory, ADAPTER_WEIGHTS_FILE) ||
           holds(directory, ADAPTER_TORCH_FILE);
}

static int add_adapter(struct lorafold_batch *batch, const char *path, struct error *err)
{
    struct lorafold_merge_options options = batch->options;
    struct lorafold_adapter adapter = { batch_keep_text(batch, path), 1.0 };

    options.adapters = batch_keep(batch, &adapter, sizeof(adapter));
    options.adapter_count = 1;
    if (!adapter.path || !options.adapters)
        return error_no_memory(err, "the adapters");
    return batch_add(batch, NULL, &options, err);
}

/* A directory that is looked through, and those that led there. */
struct trail {
    const struct trail *above; /* NULL: it is the one that was given */
    dev_t device;
    ino_t inode;
};

/* Has a link led back? */
static bool was_here(const struct trail *here)
{
    for (const struct trail *at = here->above; at; at = at->above) {
        if (at->device == here->device && at->inode == here->inode)
            return true;
    }
    return false;
}

static int add_below(struct lorafold_batch *batch, const char *directory, int depth,
                     const struct trail *above, struct error *err)
{
    struct found found = { 0 };
    struct trail here = { .above = above };
    bool trainer = false;
    struct stat st;
    int status;

    if (stat(directory, &st) < 0)
        return error_set_errno(err, "cannot look into '%s'", directory);
    here.device = st.st_dev;
    here.inode = st.st_ino;
    if (was_here(&here))
        return 0;
    status = list_directories(&found, directory, err);
    /* A trainer's directory is one adapter: its last checkpoint. */
    for (size_t i = 0; i < found.count && depth > 0; i++)
        trainer |= strncmp(strrchr(found.paths[i], '/') + 1, "checkpoint-", 11) == 0 &&
                   is_adapter(found.paths[i]);
    if (!status && trainer) {
        status = add_adapter(batch, directory, err);
    } else {
        for (size_t i = 0; i < found.count && !status; i++) {
            if (is_adapter(found.paths[i]))
                status = add_adapter(batch, found.paths[i], err);
            else if (depth < DEPTH_MAX)
                status = add_below(batch, found.paths[i], depth + 1, &here, err);
        }
    }
    found_release(&found);
    return status;
}

int lorafold_batch_add(struct lorafold_batch *batch, const char *name,
                       const struct lorafold_merge_options *options, struct lorafold_error *err)
{
    struct error inner = { 0 };

    return batch_add(batch, name, options, &inner) ? give_error(err, &inner) : 0;
}

int lorafold_batch_add_directory(struct lorafold_batch *batch, const char *directory,
                                 struct lorafold_error *err)
{
    struct error inner = { 0 };
    size_t before = batch->count;
    struct stat st;
    int status;

    if (stat(directory, &st) < 0 || !S_ISDIR(st.st_mode))
        status = error_set(&inner, ERR_USAGE, "--adapters-dir '%s' is not a directory", directory);
    else if (is_adapter(directory))
        status = error_set(&inner, ERR_USAGE,
                           "--adapters-dir '%s' is an adapter itself: give the directory that "
                           "holds it, or -a",
                           directory);
    else
        status = add_below(batch, directory, 0, NULL, &inner);
    if (!status && batch->count == before)
        status = error_set(&inner, ERR_USAGE, "there is no adapter below '%s'", directory);
    return status ? give_error(err, &inner) : 0;
}

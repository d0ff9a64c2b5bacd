#include "format/model_files.h"

#include "base/array.h"
#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char convert_advice[] =
    "load the model with transformers and save it with save_pretrained(), which writes safetensors";

static bool begins_with(const char *name, const char *begin)
{
    return strncmp(name, begin, strlen(begin)) == 0;
}

enum weight_kind weight_kind_of(const char *name)
{
    bool tensors = text_ends_with(name, ".safetensors");
    bool pickle = text_ends_with(name, ".bin") || text_ends_with(name, ".pth") ||
                  text_ends_with(name, ".pt") || text_ends_with(name, ".ckpt");

    if (name[0] == '.')
        return WEIGHT_NONE;
    if (begins_with(name, "consolidated"))
        return WEIGHT_CONSOLIDATED;
    if (begins_with(name, "adapter_") && (tensors || pickle))
        return WEIGHT_ADAPTER;
    if (tensors)
        return WEIGHT_SAFETENSORS;
    if (pickle)
        return WEIGHT_PICKLE;
    return text_ends_with(name, ".gguf") ? WEIGHT_GGUF : WEIGHT_NONE;
}

void weight_files_release(struct weight_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->files[i].name);
    free(files->files);
    *files = (struct weight_files){ 0 };
}

static int compare_files(const void *left, const void *right)
{
    return strcmp(((const struct weight_file *)left)->name,
                  ((const struct weight_file *)right)->name);
}

static int add_file(struct weight_files *files, size_t *capacity, const char *name,
                    struct error *err)
{
    enum weight_kind kind = weight_kind_of(name);

    if (strcmp(name, MODEL_INDEX_FILE) == 0)
        files->has_index = true;
    if (strcmp(name, MODEL_FILE) == 0)
        files->has_model = true;
    if (strcmp(name, "adapter_config.json") == 0)
        files->has_adapter_config = true;
    if (kind == WEIGHT_NONE)
        return 0;
    if (files->count == WEIGHT_FILES_MAX)
        return error_set(err, ERR_FORMAT, "the directory has more than %u weight files, the limit",
                         WEIGHT_FILES_MAX);
    if (files->count == *capacity) {
        struct weight_file *more = array_grow(files->files, capacity, sizeof(*more));

        if (!more)
            return error_no_memory(err, "the names of files");
        files->files = more;
    }
    files->files[files->count] = (struct weight_file){ strdup(name), kind };
    if (!files->files[files->count].name)
        return error_no_memory(err, "the names of files");
    files->count++;
    files->counts[kind]++;
    return 0;
}

int weight_files_scan(struct weight_files *out, const char *directory, struct error *err)
{
    struct weight_files files = { 0 };
    const struct dirent *entry;
    char quoted[512];
    size_t capacity = 0;
    int status = 0;
    DIR *dir = opendir(directory);

    error_quote(quoted, sizeof(quoted), directory, strlen(directory));
    if (!dir)
        return error_set_errno(err, "cannot list '%s'", quoted);
    while (errno = 0, !status && (entry = readdir(dir)) != NULL)
        status = add_file(&files, &capacity, entry->d_name, err);
    if (!status && errno)
        status = error_set_errno(err, "cannot list '%s'", quoted);
    closedir(dir);
    if (status) {
        weight_files_release(&files);
        return status;
    }
    if (files.count > 1)
        qsort(files.files, files.count, sizeof(*files.files), compare_files);
    *out = files;
    return 0;
}

const char *weight_files_first(const struct weight_files *files, enum weight_kind kind)
{
    size_t i = 0;

    while (files->files[i].kind != kind)
        i++;
    return files->files[i].name;
}

/* The names of the first few safetensors files: 'a', 'b', ... */
static void add_candidates(struct text *out, const struct weight_files *files)
{
    char quoted[QUOTED_BYTES];
    size_t shown = 0;

    for (size_t i = 0; i < files->count && shown < 3; i++) {
        const char *name = files->files[i].name;

        if (files->files[i].kind == WEIGHT_SAFETENSORS)
            text_addf(out, "%s'%s'", shown++ ? ", " : "",
                      error_quote(quoted, sizeof(quoted), name, strlen(name)));
    }
    if (files->counts[WEIGHT_SAFETENSORS] > shown)
        text_adds(out, ", ...");
}

int weight_files_refuse(const struct weight_files *files, const char *directory, struct error *err)
{
    struct text names = { 0 };
    char quoted[512];
    char first[QUOTED_BYTES];
    const char *name = "";

    error_quote(quoted, sizeof(quoted), directory, strlen(directory));
    if (files->counts[WEIGHT_SAFETENSORS]) {
        add_candidates(&names, files);
        error_set(err, ERR_FORMAT,
                  "'%s' has %zu safetensors files (%s), but neither " MODEL_FILE
                  " nor " MODEL_INDEX_FILE "; fetch the index, or name one file",
                  quoted, files->counts[WEIGHT_SAFETENSORS],
                  names.data && !names.failed ? names.data : "");
        text_release(&names);
        return ERR_FORMAT;
    }
    if (files->has_adapter_config || files->counts[WEIGHT_ADAPTER])
        return error_set(err, ERR_FORMAT,
                         "'%s' is an adapter, not a base model; give the model that it was trained "
                         "on as the base and this as the adapter",
                         quoted);
    for (enum weight_kind kind = WEIGHT_GGUF; kind >= WEIGHT_CONSOLIDATED; kind--) {
        if (files->counts[kind])
            name = weight_files_first(files, kind);
    }
    error_quote(first, sizeof(first), name, strlen(name));
    if (files->counts[WEIGHT_CONSOLIDATED])
        return error_set(err, ERR_FORMAT,
                         "'%s' has only '%s', in the layout of its maker; a base has " MODEL_FILE
                         " in the layout of transformers",
                         quoted, first);
    if (files->counts[WEIGHT_PICKLE])
        return error_set(err, ERR_FORMAT,
                         "'%s' has its weights as pickles ('%s'), which are not read; %s", quoted,
                         first, convert_advice);
    if (files->counts[WEIGHT_GGUF])
        return error_set(err, ERR_FORMAT,
                         "'%s' has its weights as GGUF ('%s'), which is not read; use the "
                         "safetensors model that it was made from",
                         quoted, first);
    return error_set(err, ERR_FORMAT,
                     "'%s' has no weights: neither " MODEL_FILE " nor " MODEL_INDEX_FILE, quoted);
}

int weight_file_refuse(const char *path, const char *name, struct error *err)
{
    char quoted[512];

    error_quote(quoted, sizeof(quoted), path, strlen(path));
    if (text_ends_with(name, ".json"))
        return error_set(err, ERR_FORMAT,
                         "'%s' holds no weights; give the directory that it lies in", quoted);
    switch (weight_kind_of(name)) {
    case WEIGHT_ADAPTER:
        return error_set(err, ERR_FORMAT,
                         "'%s' is an adapter, not a base model; give the model that it was trained "
                         "on as the base and its directory as the adapter",
                         quoted);
    case WEIGHT_PICKLE:
        return error_set(err, ERR_FORMAT, "'%s' is a pickle, which is not read; %s", quoted,
                         convert_advice);
    case WEIGHT_GGUF:
        return error_set(err, ERR_FORMAT,
                         "'%s' is GGUF, which is not read; use the safetensors model that it was "
                         "made from",
                         quoted);
    default:
        return 0;
    }
}

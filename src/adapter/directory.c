#include "adapter/directory.h"

#include "adapter/nested.h"
#include "base/text.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char *adapter_directory_join(const char *directory, const char *name)
{
    struct text text = { 0 };

    text_adds(&text, directory);
    if (text.bytes && text.data[text.bytes - 1] != '/')
        text_adds(&text, "/");
    text_adds(&text, name);
    return text_take(&text);
}

const char *adapter_weights_name(enum adapter_weights weights)
{
    return weights == ADAPTER_TORCH ? ADAPTER_TORCH_FILE : ADAPTER_WEIGHTS_FILE;
}

static int refuse_without_config(const char *directory, struct error *err)
{
    if (adapter_directory_holds(directory, ADAPTER_WEIGHTS_FILE) ||
        adapter_directory_holds(directory, ADAPTER_TORCH_FILE))
        return error_set(err, ERR_FORMAT,
                         "there is no " ADAPTER_CONFIG_FILE " beside the weights; rank and alpha "
                         "stand in it, so copy it from where the adapter was trained");
    if (adapter_directory_holds(directory, "config.json") ||
        adapter_directory_holds(directory, "model.safetensors") ||
        adapter_directory_holds(directory, "model.safetensors.index.json"))
        return error_set(err, ERR_FORMAT,
                         "this is a whole model and no adapter: there is no " ADAPTER_CONFIG_FILE
                         "; give it as BASE, and as adapter what PEFT saved");
    return error_set(err, ERR_FORMAT,
                     "there is no " ADAPTER_CONFIG_FILE ", which every PEFT adapter has");
}

/* The weights beside the configuration: safetensors where both are there, as PEFT loads them. */
static int find_weights(enum adapter_weights *out, const char *directory, struct error *err)
{
    if (!adapter_directory_holds(directory, ADAPTER_CONFIG_FILE))
        return refuse_without_config(directory, err);
    if (adapter_directory_holds(directory, ADAPTER_WEIGHTS_FILE))
        *out = ADAPTER_SAFETENSORS;
    else if (adapter_directory_holds(directory, ADAPTER_TORCH_FILE))
        *out = ADAPTER_TORCH;
    else
        return error_set(err, ERR_FORMAT,
                         "there is no " ADAPTER_WEIGHTS_FILE " in it, and no " ADAPTER_TORCH_FILE);
    return 0;
}

/* The adapter that a directory is or, where it has neither configuration nor weights, holds. */
static int find_in_directory(char **out, enum adapter_weights *weights, const char *path,
                             const struct log *log, struct error *err)
{
    char *directory = NULL;
    int status = 0;

    if (!adapter_directory_holds(path, ADAPTER_CONFIG_FILE) &&
        !adapter_directory_holds(path, ADAPTER_WEIGHTS_FILE) &&
        !adapter_directory_holds(path, ADAPTER_TORCH_FILE))
        status = adapter_nested_find(&directory, path, log, err);
    if (!status && !directory) {
        directory = strdup(path);
        if (!directory)
            status = error_no_memory(err, "a path");
    }
    if (!status)
        status = find_weights(weights, directory, err);
    if (status)
        free(directory);
    else
        *out = directory;
    return status;
}

/* The directory of a file of an adapter; a weights file that is named is the one that is used. */
static int find_by_file(char **out, enum adapter_weights *weights, const char *path,
                        struct error *err)
{
    const char *slash = strrchr(path, '/');
    const char *last = slash ? slash + 1 : path;
    char *directory;
    int status;

    if (strcmp(last, ADAPTER_CONFIG_FILE) != 0 && strcmp(last, ADAPTER_WEIGHTS_FILE) != 0 &&
        strcmp(last, ADAPTER_TORCH_FILE) != 0)
        return error_set(err, ERR_FORMAT,
                         "this is a file; an adapter is a directory with " ADAPTER_CONFIG_FILE
                         " and " ADAPTER_WEIGHTS_FILE " or " ADAPTER_TORCH_FILE);
    directory = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (!directory)
        return error_no_memory(err, "a path");
    status = find_weights(weights, directory, err);
    if (status) {
        free(directory);
        return status;
    }
    if (strcmp(last, ADAPTER_TORCH_FILE) == 0)
        *weights = ADAPTER_TORCH;
    *out = directory;
    return 0;
}

int adapter_directory_find(char **out, enum adapter_weights *weights, const char *path,
                           const struct log *log, struct error *err)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            return error_set_errno(err, "cannot be looked at");
        return error_set(err, ERR_USAGE, "there is no such directory");
    }
    return S_ISDIR(st.st_mode) ? find_in_directory(out, weights, path, log, err)
                               : find_by_file(out, weights, path, err);
}

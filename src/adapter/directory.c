#include "adapter/directory.h"

#include "base/text.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RESAVE                                                                                     \
    "save the adapter again as safetensors with PEFT: "                                            \
    "PeftModel.from_pretrained(...).save_pretrained(..., safe_serialization=True)"

char *adapter_directory_join(const char *directory, const char *name)
{
    struct text text = { 0 };

    text_adds(&text, directory);
    if (text.bytes && text.data[text.bytes - 1] != '/')
        text_adds(&text, "/");
    text_adds(&text, name);
    return text_take(&text);
}

/* Is there an entry of this name?  A dangling link is one: opening it says what is wrong. */
static bool holds(const char *directory, const char *name)
{
    char *path = adapter_directory_join(directory, name);
    struct stat st;
    bool there = path && lstat(path, &st) == 0;

    free(path);
    return there;
}

/* The alphabetically first sub-directory that holds an adapter, into `name`; false if none does. */
static bool find_nested(const char *directory, char *name, size_t name_bytes)
{
    DIR *stream = opendir(directory);
    struct dirent *entry;

    name[0] = '\0';
    if (!stream)
        return false;
    while ((entry = readdir(stream))) {
        char *path;

        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= name_bytes ||
            (name[0] && strcmp(entry->d_name, name) > 0))
            continue;
        path = adapter_directory_join(directory, entry->d_name);
        if (path && holds(path, ADAPTER_CONFIG_FILE))
            memcpy(name, entry->d_name, strlen(entry->d_name) + 1);
        free(path);
    }
    closedir(stream);
    return name[0] != '\0';
}

static int refuse_without_config(const char *directory, struct error *err)
{
    char nested[256];
    char quoted[QUOTED_BYTES];

    if (find_nested(directory, nested, sizeof(nested)))
        return error_set(err, ERR_FORMAT,
                         "there is no " ADAPTER_CONFIG_FILE " in it, but in its sub-directory "
                         "'%s': name that one",
                         error_quote(quoted, sizeof(quoted), nested, strlen(nested)));
    if (holds(directory, ADAPTER_WEIGHTS_FILE) || holds(directory, "adapter_model.bin"))
        return error_set(err, ERR_FORMAT,
                         "there is no " ADAPTER_CONFIG_FILE " beside the weights; rank and alpha "
                         "stand in it, so copy it from where the adapter was trained");
    if (holds(directory, "config.json") || holds(directory, "model.safetensors") ||
        holds(directory, "model.safetensors.index.json"))
        return error_set(err, ERR_FORMAT,
                         "this is a whole model and no adapter: there is no " ADAPTER_CONFIG_FILE
                         "; give it as BASE, and as adapter what PEFT saved");
    return error_set(err, ERR_FORMAT,
                     "there is no " ADAPTER_CONFIG_FILE ", which every PEFT adapter has");
}

static int check_files(const char *directory, struct error *err)
{
    if (!holds(directory, ADAPTER_CONFIG_FILE))
        return refuse_without_config(directory, err);
    if (holds(directory, ADAPTER_WEIGHTS_FILE))
        return 0;
    if (holds(directory, "adapter_model.bin"))
        return error_set(
            err, ERR_FORMAT,
            "its weights are a pickle (adapter_model.bin), which is not read; " RESAVE);
    return error_set(err, ERR_FORMAT, "there is no " ADAPTER_WEIGHTS_FILE " in it");
}

int adapter_directory_find(char **out, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    const char *last = slash ? slash + 1 : path;
    char *directory = NULL;
    struct stat st;

    if (stat(path, &st) < 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            return error_set_errno(err, "cannot be looked at");
        return error_set(err, ERR_USAGE, "there is no such directory");
    }
    if (S_ISDIR(st.st_mode))
        directory = strdup(path);
    else if (strcmp(last, ADAPTER_WEIGHTS_FILE) == 0)
        directory = !slash ? strdup(".")
                           : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    else if (strcmp(last, "adapter_model.bin") == 0)
        return error_set(err, ERR_FORMAT, "this is a pickle, which is not read; " RESAVE);
    else
        return error_set(err, ERR_FORMAT,
                         "this is a file; an adapter is a directory with " ADAPTER_CONFIG_FILE
                         " and " ADAPTER_WEIGHTS_FILE);
    if (!directory)
        return error_no_memory(err, "a path");
    if (check_files(directory, err)) {
        free(directory);
        return err->code;
    }
    *out = directory;
    return 0;
}

#include "adapter/nested.h"

#include "adapter/directory.h"
#include "base/array.h"
#include "base/text.h"

#include <dirent.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAMES_SHOWN 8u

struct names {
    char **list; /* sorted */
    size_t count;
    size_t capacity;
};

bool adapter_directory_holds(const char *directory, const char *name)
{
    char *path = adapter_directory_join(directory, name);
    struct stat st;
    bool there = path && lstat(path, &st) == 0;

    free(path);
    return there;
}

bool adapter_directory_is_adapter(const char *directory)
{
    return adapter_directory_holds(directory, ADAPTER_CONFIG_FILE) &&
           (adapter_directory_holds(directory, ADAPTER_WEIGHTS_FILE) ||
            adapter_directory_holds(directory, ADAPTER_TORCH_FILE));
}

static int add_if_adapter(struct names *names, const char *directory, const char *name,
                          struct error *err)
{
    char *path = adapter_directory_join(directory, name);
    bool is_adapter = path && adapter_directory_is_adapter(path);

    free(path);
    if (!path)
        return error_no_memory(err, "a path");
    if (!is_adapter)
        return 0;
    if (names->count == names->capacity) {
        char **more = array_grow(names->list, &names->capacity, sizeof(*more));

        if (!more)
            return error_no_memory(err, "the names of adapters");
        names->list = more;
    }
    names->list[names->count] = strdup(name);
    if (!names->list[names->count])
        return error_no_memory(err, "the names of adapters");
    names->count++;
    return 0;
}

static int compare(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static int list_adapters(struct names *names, const char *directory, struct error *err)
{
    DIR *stream = opendir(directory);
    struct dirent *entry;
    int status = 0;

    if (!stream)
        return error_set_errno(err, "its entries cannot be listed");
    while (!status && (entry = readdir(stream))) {
        if (entry->d_name[0] != '.')
            status = add_if_adapter(names, directory, entry->d_name, err);
    }
    closedir(stream);
    if (names->count > 1)
        qsort(names->list, names->count, sizeof(*names->list), compare);
    return status;
}

/* N of "checkpoint-N", or -1; more digits than an int64_t surely holds are no number of steps. */
static int64_t checkpoint_step(const char *name)
{
    static const char begin[] = "checkpoint-";
    const char *digits = name + sizeof(begin) - 1;
    size_t count;

    if (strncmp(name, begin, sizeof(begin) - 1) != 0)
        return -1;
    count = strspn(digits, "0123456789");
    return count > 0 && count <= 18 && !digits[count] ? strtoll(digits, NULL, 10) : -1;
}

/* The checkpoint with the most steps, or NULL if anything else is among the names. */
static const char *last_checkpoint(const struct names *names)
{
    const char *last = NULL;
    int64_t last_step = -1;

    for (size_t i = 0; i < names->count; i++) {
        int64_t step = checkpoint_step(names->list[i]);

        if (step < 0)
            return NULL;
        if (step >= last_step) {
            last = names->list[i];
            last_step = step;
        }
    }
    return last;
}

static int refuse_several(const struct names *names, struct error *err)
{
    struct text text = { 0 };
    char quoted[64];
    int status;

    for (size_t i = 0; i < names->count && i < NAMES_SHOWN; i++)
        text_addf(&text, "%s'%s'", i ? ", " : "",
                  error_quote(quoted, sizeof(quoted), names->list[i], strlen(names->list[i])));
    if (names->count > NAMES_SHOWN)
        text_addf(&text, " and %zu more", names->count - NAMES_SHOWN);
    if (text.failed)
        status = error_no_memory(err, "the names of adapters");
    else
        status = error_set(err, ERR_USAGE,
                           "there is no " ADAPTER_CONFIG_FILE
                           " in it, but %zu adapters in its sub-directories (%s): name one of them",
                           names->count, text.data);
    text_release(&text);
    return status;
}

static void say(const struct log *log, const char *directory, const char *name, size_t count)
{
    char outer[QUOTED_BYTES];
    char inner[QUOTED_BYTES];

    error_quote(outer, sizeof(outer), directory, strlen(directory));
    error_quote(inner, sizeof(inner), name, strlen(name));
    if (count > 1)
        log_say(log, LOG_NOTICE, "adapter '%s': the last of its %zu checkpoints is used, '%s'",
                outer, count, inner);
    else
        log_say(log, LOG_NOTICE,
                "adapter '%s': its sub-directory '%s' is used, the only adapter "
                "in it",
                outer, inner);
}

int adapter_nested_find(char **out, const char *directory, const struct log *log, struct error *err)
{
    struct names names = { 0 };
    const char *chosen = NULL;
    int status = list_adapters(&names, directory, err);

    *out = NULL;
    if (!status && names.count > 0) {
        chosen = names.count == 1 ? names.list[0] : last_checkpoint(&names);
        if (!chosen)
            status = refuse_several(&names, err);
    }
    if (!status && chosen) {
        *out = adapter_directory_join(directory, chosen);
        if (*out)
            say(log, directory, chosen, names.count);
        else
            status = error_no_memory(err, "a path");
    }
    for (size_t i = 0; i < names.count; i++)
        free(names.list[i]);
    free(names.list);
    return status;
}

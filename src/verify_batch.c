/* verify_batch.c - verify of a directory that holds several outputs: one after the other */
#include "merge.h"

#include "base/array.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PARTIAL_SUFFIX ".partial"

struct outputs {
    char **names;
    size_t count;
    size_t capacity;
};

struct telling {
    const struct lorafold_verify_options *options;
    const char *name;
};

static bool has_manifest(const char *directory, const char *name)
{
    char path[PATH_MAX];
    struct stat st;

    return snprintf(path, sizeof(path), "%s/%s%s%s", directory, name, *name ? "/" : "",
                    MANIFEST_NAME) < (int)sizeof(path) &&
           lstat(path, &st) == 0;
}

static bool ends_partial(const char *name)
{
    size_t bytes = strlen(name);
    size_t end = sizeof(PARTIAL_SUFFIX) - 1;

    return bytes > end && strcmp(name + bytes - end, PARTIAL_SUFFIX) == 0;
}

static int compare_names(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static void release(struct outputs *outputs)
{
    for (size_t i = 0; i < outputs->count; i++)
        free(outputs->names[i]);
    free(outputs->names);
}

/* The outputs in a directory, sorted: what has a manifest, and what was left unfinished. */
static int list_outputs(struct outputs *out, const char *directory, struct error *err)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;
    int status = 0;

    if (!dir)
        return error_set_errno(err, "cannot list '%s'", directory);
    while (!status && (errno = 0, entry = readdir(dir))) {
        char **more;

        if (entry->d_name[0] == '.' ||
            (!has_manifest(directory, entry->d_name) && !ends_partial(entry->d_name)))
            continue;
        more = array_next(out->names, out->count, &out->capacity, sizeof(*more));
        if (more) {
            out->names = more;
            out->names[out->count] = strdup(entry->d_name);
        }
        if (!more || !out->names[out->count])
            status = error_no_memory(err, "the list of outputs");
        else
            out->count++;
    }
    if (!status && errno)
        status = error_set_errno(err, "cannot list '%s'", directory);
    closedir(dir);
    if (out->count)
        qsort(out->names, out->count, sizeof(*out->names), compare_names);
    return status;
}

static void tell(void *context, enum lorafold_level level, const char *sentence)
{
    const struct telling *telling = context;
    char quoted[QUOTED_BYTES];
    char text[2048];

    if (!telling->options->message)
        return;
    snprintf(text, sizeof(text), "output '%s': %s",
             error_quote(quoted, sizeof(quoted), telling->name, strlen(telling->name)), sentence);
    telling->options->message(telling->options->context, level, text);
}

static void show(void *context, const struct lorafold_progress *progress)
{
    const struct telling *telling = context;

    if (telling->options->progress)
        telling->options->progress(telling->options->context, progress);
}

/* One output; the first difference of all is the error, the others are told. */
static int verify_next(const char *directory, const char *name,
                       const struct lorafold_verify_options *options,
                       struct lorafold_verify_report *sum, struct error *err)
{
    struct telling telling = { options, name };
    struct lorafold_verify_options inside = *options;
    struct lorafold_verify_report report = { 0 };
    struct lorafold_error found = { 0 };
    char path[PATH_MAX];
    char quoted[QUOTED_BYTES];

    inside.message = tell;
    inside.progress = show;
    inside.context = &telling;
    if (!has_manifest(directory, name)) {
        tell(&telling, LORAFOLD_WARNING, "it is not finished, and no output yet");
        return 0;
    }
    if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path))
        return error_set(err, ERR_USAGE, "'%s' is too long a path", directory);
    (void)verify_one(path, &inside, &report, &found);
    sum->output_count++;
    sum->file_count += report.file_count;
    sum->bytes += report.bytes;
    sum->bytes_shared += report.bytes_shared;
    sum->bytes_unread += report.bytes_unread;
    sum->seconds += report.seconds;
    if (found.code == 0)
        return 0;
    if (err->code && found.code != LORAFOLD_CANCELLED)
        tell(&telling, LORAFOLD_WARNING, found.text);
    else
        error_set(err, found.code, "output '%s': %s",
                  error_quote(quoted, sizeof(quoted), name, strlen(name)), found.text);
    return found.code == LORAFOLD_CANCELLED ? err->code : 0;
}

/* What the list names and nothing is there of; the first difference of all is the error. */
static void find_missing(const char *directory, const struct batch_list *list,
                         const struct lorafold_verify_options *options, struct error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        const char *name = list->items[i].name;
        struct telling telling = { options, name };
        char quoted[QUOTED_BYTES];

        if (has_manifest(directory, name))
            continue;
        if (!list->items[i].complete)
            tell(&telling, LORAFOLD_WARNING, "it was to be made, and was not");
        else if (err->code)
            tell(&telling, LORAFOLD_WARNING, "it is missing");
        else
            error_set(err, LORAFOLD_DIFFERENT, "output '%s': it is missing",
                      error_quote(quoted, sizeof(quoted), name, strlen(name)));
    }
}

int lorafold_verify(const char *directory, const struct lorafold_verify_options *options,
                    struct lorafold_verify_report *report, struct lorafold_error *err)
{
    struct lorafold_verify_report sum = { 0 };
    struct outputs outputs = { 0 };
    struct error inner = { 0 };
    struct error listing = { 0 };
    struct batch_list list;
    struct stat st;
    bool any;

    if (stat(directory, &st) < 0 || !S_ISDIR(st.st_mode) || has_manifest(directory, ""))
        return verify_one(directory, options, report, err);
    any = batch_list_read(&list, directory, &listing) == 0 && list.count;
    if (list_outputs(&outputs, directory, &inner) == 0) {
        for (size_t i = 0; i < outputs.count; i++)
            any |= has_manifest(directory, outputs.names[i]);
        for (size_t i = 0; i < outputs.count && any; i++) {
            if (verify_next(directory, outputs.names[i], options, &sum, &inner))
                break;
        }
    }
    if (inner.code != LORAFOLD_CANCELLED)
        find_missing(directory, &list, options, &inner);
    batch_list_release(&list);
    release(&outputs);
    if (inner.code == 0)
        inner = listing;
    if (!any && inner.code == 0)
        return verify_one(directory, options, report, err); /* says what is missing */
    if (report)
        *report = sum;
    return inner.code ? give_error(err, &inner) : 0;
}

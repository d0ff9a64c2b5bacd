/*
 * batch_list.c - which outputs belong into a directory that holds several
 *
 *     {"format": 1, "outputs": [{"name": "chat", "complete": true}]}
 *
 * It is replaced in one step, after the outputs it tells of are published.
 */
#include "batch.h"

#include "base/array.h"
#include "base/json.h"
#include "io/file.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIST_FORMAT 1
#define LIST_PARTIAL "." BATCH_LIST_NAME ".partial"

void batch_list_release(struct batch_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i].name);
    free(list->items);
    *list = (struct batch_list){ 0 };
}

/* What is complete stays that, also if it could not be made once more. */
static int add_item(struct batch_list *list, const char *name, bool complete, struct error *err)
{
    struct batch_list_item *more;
    char *copy;

    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].name, name) != 0)
            continue;
        list->items[i].complete |= complete;
        return 0;
    }
    copy = strdup(name);
    more = array_next(list->items, list->count, &list->capacity, sizeof(*more));
    if (more)
        list->items = more;
    if (!copy || !more) {
        free(copy);
        return error_no_memory(err, "the list of outputs");
    }
    list->items[list->count++] = (struct batch_list_item){ copy, complete };
    return 0;
}

static int read_items(struct batch_list *out, const cJSON *root, struct error *err)
{
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(root, "format");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "outputs");
    const cJSON *item;

    if (!cJSON_IsNumber(format) || format->valuedouble != LIST_FORMAT || !cJSON_IsArray(list))
        return error_set(err, ERR_FORMAT, "it is no list of outputs of format %d", LIST_FORMAT);
    cJSON_ArrayForEach(item, list)
    {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name");
        const cJSON *complete = cJSON_GetObjectItemCaseSensitive(item, "complete");

        if (!cJSON_IsString(name) || !cJSON_IsBool(complete))
            return error_set(err, ERR_FORMAT,
                             "an output has no name, or is not said to be complete");
        if (batch_check_name(name->valuestring, err))
            return err->code = ERR_FORMAT;
        if (add_item(out, name->valuestring, cJSON_IsTrue(complete), err))
            return err->code;
    }
    return 0;
}

int batch_list_read(struct batch_list *out, const char *directory, struct error *err)
{
    char path[PATH_MAX];
    cJSON *root = NULL;
    char *json = NULL;
    size_t bytes = 0;
    struct stat st;
    int status;

    *out = (struct batch_list){ 0 };
    if (snprintf(path, sizeof(path), "%s/%s", directory, BATCH_LIST_NAME) >= (int)sizeof(path))
        return error_set(err, ERR_USAGE, "'%s' is too long a path", directory);
    if (lstat(path, &st) < 0 && errno == ENOENT)
        return 0;
    status = file_read_all(&json, &bytes, path, JSON_DOCUMENT_BYTES_MAX, err);
    if (!status) {
        status = json_parse(&root, json, bytes, 0, err);
        if (!status)
            status = read_items(out, root, err);
        if (status)
            error_prefix(err, "'%s'", path);
    }
    cJSON_Delete(root);
    free(json);
    if (status)
        batch_list_release(out);
    return status;
}

static int write_items(const struct batch_list *list, int directory_fd, struct error *err)
{
    struct file file = FILE_CLOSED;
    struct text text = { 0 };
    int status;

    text_addf(&text, "{\"format\": %d, \"outputs\": [", LIST_FORMAT);
    for (size_t i = 0; i < list->count; i++) {
        text_adds(&text, i ? ",\n{\"name\": " : "\n{\"name\": ");
        text_add_json(&text, list->items[i].name, strlen(list->items[i].name));
        text_addf(&text, ", \"complete\": %s}", list->items[i].complete ? "true" : "false");
    }
    text_adds(&text, "\n]}\n");
    (void)unlinkat(directory_fd, LIST_PARTIAL, 0); /* of a run that was killed */
    if (text.failed)
        status = error_no_memory(err, "the list of outputs");
    else if (file_create_output(directory_fd, LIST_PARTIAL, text.bytes, err) ||
             file_open_output(&file, directory_fd, LIST_PARTIAL, FILE_DIRECT_OFF, err) ||
             file_pwrite(&file, text.data, text.bytes, 0, err) || file_sync(&file, err))
        status = err->code;
    else if (renameat(directory_fd, LIST_PARTIAL, directory_fd, BATCH_LIST_NAME) < 0)
        status = error_set_errno(err, "cannot rename '%s'", LIST_PARTIAL);
    else
        status = 0;
    if (status)
        (void)unlinkat(directory_fd, LIST_PARTIAL, 0);
    file_close(&file);
    text_release(&text);
    return status;
}

static int update(const struct lorafold_batch *batch, int directory_fd, struct error *err)
{
    struct batch_list list;
    struct error inner = { 0 };
    int status = 0;

    (void)flock(directory_fd, LOCK_EX); /* where it works, batches in one place wait their turn */
    if (batch_list_read(&list, batch->options.output, &inner))
        log_say(&batch->log, LOG_WARNING, "the list of outputs is begun anew: %s", inner.text);
    for (size_t i = 0; i < batch->count && !status; i++) {
        enum lorafold_output_state state = batch->outputs[i].state;

        status = add_item(&list, batch->outputs[i].name,
                          state == LORAFOLD_OUTPUT_COMPLETE || state == LORAFOLD_OUTPUT_EXISTS,
                          err);
    }
    if (!status)
        status = write_items(&list, directory_fd, err);
    if (!status && fsync(directory_fd) < 0 && errno != EINVAL && errno != EOPNOTSUPP)
        status = error_set_errno(err, "cannot sync the directory");
    batch_list_release(&list);
    return status;
}

int batch_list_update(const struct lorafold_batch *batch, struct error *err)
{
    int fd = open(batch->options.output, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int status;

    status = fd < 0 ? error_set_errno(err, "cannot open the directory") : update(batch, fd, err);
    if (fd >= 0)
        close(fd);
    if (status)
        error_prefix(err, "the list of outputs '%s/%s' is not up to date", batch->options.output,
                     BATCH_LIST_NAME);
    return status;
}

/*
 * batch_jobs.c - outputs listed in a JSON file
 *
 *     { "outputs": [ { "name": "chat", "adapters": [ "./chat", { "path": "./style", "weight": 0.3 }
 * ], "dtype": "bf16" } ] }
 *
 * Paths mean what they mean on the command line.  What is said of a field begins with
 * its place, "outputs[2].adapters[0].weight".
 */
#include "batch.h"

#include "base/json.h"
#include "io/file.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLACE_BYTES 200

enum field_kind { FIELD_CHOICE, FIELD_FLAG, FIELD_NOT_FLAG, FIELD_SIZE, FIELD_TEXT, FIELD_LIST };

struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;              /* in struct lorafold_merge_options */
    const char *const *choices; /* in the order of their enumeration */
};

static const char *const methods[] = { "merged_16bit", "merged_4bit", "lora", "same", NULL };
static const char *const dtypes[] = { "keep", "bf16", "f16", "f32", NULL };
static const char *const quant_types[] = { "nf4", "fp4", NULL };
static const char *const tied_rules[] = { "exact", "shared", NULL };
static const char *const layouts[] = { "auto", "rank-major", "expert-major", NULL };

#define AT(member) offsetof(struct lorafold_merge_options, member)
static const struct field fields[] = {
    { "save_method", FIELD_CHOICE, AT(save_method), methods },
    { "dtype", FIELD_CHOICE, AT(dtype), dtypes },
    { "quant_type", FIELD_CHOICE, AT(quant_type), quant_types },
    { "tied", FIELD_CHOICE, AT(tied), tied_rules },
    { "lora_b_layout", FIELD_CHOICE, AT(b_layout), layouts },
    { "double_quant", FIELD_NOT_FLAG, AT(single_quant), NULL },
    { "allow_unused", FIELD_FLAG, AT(allow_unused), NULL },
    { "allow_nonfinite", FIELD_FLAG, AT(allow_nonfinite), NULL },
    { "max_shard_size", FIELD_SIZE, AT(max_shard_bytes), NULL },
    { "tokenizer", FIELD_TEXT, AT(tokenizer), NULL },
    { "safe_serialization", FIELD_FLAG, AT(safe_serialization), NULL },
    { "variant", FIELD_TEXT, AT(variant), NULL },
    { "skip", FIELD_LIST, AT(skip), NULL },
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

struct reader {
    struct lorafold_batch *batch;
    const char *path;
    struct error *err; /* the first bad field */
    size_t bad;
    bool no_memory;
};

/* The first bad field is the error, the others are told. */
__attribute__((format(printf, 3, 4))) static void refuse(struct reader *reader, const char *place,
                                                         const char *format, ...)
{
    char quoted[QUOTED_BYTES];
    char reason[600];
    char sentence[sizeof(reader->err->text)];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reason, sizeof(reason), format, arguments);
    va_end(arguments);
    snprintf(sentence, sizeof(sentence), "'%s': %s: %s",
             error_quote(quoted, sizeof(quoted), reader->path, strlen(reader->path)), place,
             reason);
    if (reader->bad++ == 0)
        error_set(reader->err, ERR_FORMAT, "%s", sentence);
    else
        log_say(&reader->batch->log, LOG_WARNING, "%s", sentence);
}

static void *keep(struct reader *reader, const void *data, size_t bytes)
{
    void *copy = batch_keep(reader->batch, data, bytes);

    reader->no_memory |= !copy;
    return copy;
}

static const char *keep_text(struct reader *reader, const cJSON *item, const char *place)
{
    if (!cJSON_IsString(item) || item->valuestring[0] == '\0') {
        refuse(reader, place, "it is no text, or an empty one");
        return NULL;
    }
    return keep(reader, item->valuestring, strlen(item->valuestring));
}

static void read_choice(struct reader *reader, const cJSON *item, const char *place,
                        const char *const *choices, void *out)
{
    char known[200] = "";
    int found = -1;

    for (int i = 0; choices[i]; i++) {
        size_t used = strlen(known);

        if (cJSON_IsString(item) && strcmp(item->valuestring, choices[i]) == 0)
            found = i;
        snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", choices[i]);
    }
    if (found < 0)
        refuse(reader, place, "it is not one of: %s", known);
    else
        memcpy(out, &found, sizeof(found)); /* an enumeration of the public header */
}

static void read_size(struct reader *reader, const cJSON *item, const char *place, uint64_t *out)
{
    if (cJSON_IsString(item) && lorafold_parse_size(item->valuestring, out))
        return;
    if (cJSON_IsNumber(item) && item->valuedouble >= 1 && item->valuedouble <= 9007199254740992.0 &&
        floor(item->valuedouble) == item->valuedouble) {
        *out = (uint64_t)item->valuedouble;
        return;
    }
    refuse(reader, place, "it is no size such as \"5GB\", \"200MB\" or 5000000000");
}

static void read_list(struct reader *reader, const cJSON *item, const char *place,
                      struct lorafold_merge_options *options)
{
    size_t count = cJSON_IsArray(item) ? (size_t)cJSON_GetArraySize(item) : 0;
    const char **list;
    const cJSON *entry;
    size_t i = 0;

    if (!cJSON_IsArray(item)) {
        refuse(reader, place, "it is no list of names");
        return;
    }
    list = calloc(count + 1, sizeof(*list));
    reader->no_memory |= !list;
    cJSON_ArrayForEach(entry, item)
    {
        char inside[PLACE_BYTES + 32];

        snprintf(inside, sizeof(inside), "%s[%zu]", place, i);
        if (list)
            list[i++] = keep_text(reader, entry, inside);
    }
    options->skip = list ? keep(reader, list, count * sizeof(*list)) : NULL;
    options->skip_count = count;
    free(list);
}

static void read_field(struct reader *reader, const struct field *field, const cJSON *item,
                       const char *place, struct lorafold_merge_options *options)
{
    void *member = (char *)options + field->offset;

    switch (field->kind) {
    case FIELD_CHOICE:
        read_choice(reader, item, place, field->choices, member);
        break;
    case FIELD_FLAG:
    case FIELD_NOT_FLAG:
        if (cJSON_IsBool(item))
            *(bool *)member = cJSON_IsTrue(item) == (field->kind == FIELD_FLAG);
        else
            refuse(reader, place, "it is neither true nor false");
        break;
    case FIELD_SIZE:
        read_size(reader, item, place, member);
        break;
    case FIELD_TEXT:
        *(const char **)member = keep_text(reader, item, place);
        break;
    case FIELD_LIST:
        read_list(reader, item, place, options);
        break;
    }
}

/* "./chat", or { "path": "./chat", "weight": 0.5 } */
static void read_adapter(struct reader *reader, const cJSON *item, const char *place,
                         struct lorafold_adapter *out)
{
    const cJSON *path = item;
    const cJSON *member;
    char inside[PLACE_BYTES + 64];

    *out = (struct lorafold_adapter){ .weight = 1.0 };
    if (cJSON_IsObject(item)) {
        path = cJSON_GetObjectItemCaseSensitive(item, "path");
        if (!path)
            refuse(reader, place, "it has no \"path\"");
        cJSON_ArrayForEach(member, item)
        {
            snprintf(inside, sizeof(inside), "%s.%.40s", place, member->string);
            if (strcmp(member->string, "weight") == 0) {
                if (cJSON_IsNumber(member) && isfinite(member->valuedouble))
                    out->weight = member->valuedouble;
                else
                    refuse(reader, inside, "it is no finite number");
            } else if (strcmp(member->string, "path") != 0) {
                refuse(reader, inside, "an adapter has \"path\" and \"weight\" only");
            }
        }
        snprintf(inside, sizeof(inside), "%s.path", place);
        place = inside;
    }
    if (path)
        out->path = keep_text(reader, path, place);
}

static void read_adapters(struct reader *reader, const cJSON *item, const char *place,
                          struct lorafold_merge_options *options)
{
    size_t count = cJSON_IsArray(item) ? (size_t)cJSON_GetArraySize(item) : 0;
    struct lorafold_adapter *list;
    const cJSON *entry;

    if (count == 0) {
        refuse(reader, place, "it is no list of adapters, or an empty one");
        return;
    }
    list = calloc(count, sizeof(*list));
    reader->no_memory |= !list;
    options->adapter_count = 0;
    cJSON_ArrayForEach(entry, item)
    {
        char inside[PLACE_BYTES];

        snprintf(inside, sizeof(inside), "%.150s[%zu]", place, options->adapter_count);
        if (list)
            read_adapter(reader, entry, inside, &list[options->adapter_count++]);
    }
    options->adapters = list ? keep(reader, list, count * sizeof(*list)) : NULL;
    free(list);
}

static const struct field *find_field(const char *name)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    }
    return NULL;
}

static void refuse_field(struct reader *reader, const char *place)
{
    char known[400] = "name, adapters";

    for (size_t i = 0; i < FIELD_COUNT; i++) {
        size_t used = strlen(known);

        snprintf(known + used, sizeof(known) - used, ", %s", fields[i].name);
    }
    refuse(reader, place, "an output has no such field, but these: %s", known);
}

static const char *read_name(struct reader *reader, const cJSON *item, const char *place)
{
    const char *name = keep_text(reader, item, place);
    struct error err = { 0 };

    if (name && batch_check_name(name, &err))
        refuse(reader, place, "%s", err.text);
    return name;
}

static void read_output(struct reader *reader, const cJSON *item, size_t index)
{
    struct lorafold_merge_options options = reader->batch->options;
    const char *name = NULL;
    size_t bad = reader->bad;
    struct error err = { 0 };
    const cJSON *member;
    char place[PLACE_BYTES];

    snprintf(place, sizeof(place), "outputs[%zu]", index);
    options.adapter_count = 0;
    if (!cJSON_IsObject(item)) {
        refuse(reader, place, "it is no object");
        return;
    }
    cJSON_ArrayForEach(member, item)
    {
        const struct field *field = find_field(member->string);
        char quoted[64];

        snprintf(place, sizeof(place), "outputs[%zu].%s", index,
                 error_quote(quoted, sizeof(quoted), member->string, strlen(member->string)));
        if (strcmp(member->string, "name") == 0)
            name = read_name(reader, member, place);
        else if (strcmp(member->string, "adapters") == 0)
            read_adapters(reader, member, place, &options);
        else if (field)
            read_field(reader, field, member, place, &options);
        else
            refuse_field(reader, place);
    }
    snprintf(place, sizeof(place), "outputs[%zu]", index);
    if (!cJSON_GetObjectItemCaseSensitive(item, "adapters"))
        refuse(reader, place, "it has no \"adapters\"");
    if (reader->bad > bad || reader->no_memory)
        return;
    if (batch_add(reader->batch, name, &options, &err) == ERR_USAGE)
        refuse(reader, place, "%s", err.text);
    else
        reader->no_memory |= err.code != 0;
}

static int read_document(struct reader *reader, const cJSON *root)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "outputs");
    const cJSON *item;
    size_t index = 0;

    if (!cJSON_IsObject(root) || !cJSON_IsArray(list) || !list->child)
        refuse(reader, "outputs", "it is no list of outputs, or an empty one");
    cJSON_ArrayForEach(item, root)
    {
        char quoted[64];

        if (item->string && strcmp(item->string, "outputs") != 0)
            refuse(reader, error_quote(quoted, sizeof(quoted), item->string, strlen(item->string)),
                   "the file has \"outputs\" only");
    }
    if (reader->bad == 0) {
        cJSON_ArrayForEach(item, list)
        {
            read_output(reader, item, index++);
        }
    }
    if (reader->no_memory)
        return error_no_memory(reader->err, "the outputs");
    return reader->bad ? reader->err->code : 0;
}

int lorafold_batch_add_jobs(struct lorafold_batch *batch, const char *path,
                            struct lorafold_error *err)
{
    struct error inner = { 0 };
    struct reader reader = { .batch = batch, .path = path, .err = &inner };
    cJSON *root = NULL;
    char *json = NULL;
    size_t bytes = 0;
    int status = file_read_all(&json, &bytes, path, JSON_DOCUMENT_BYTES_MAX, &inner);

    if (!status) {
        status = json_parse(&root, json, bytes, 0, &inner);
        if (status)
            error_prefix(&inner, "'%s'", path);
    }
    if (!status)
        status = read_document(&reader, root);
    cJSON_Delete(root);
    free(json);
    return status ? give_error(err, &inner) : 0;
}

#include "format/index.h"

#include "base/array.h"
#include "base/json.h"
#include "format/model.h"
#include "format/names.h"
#include "format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A shard name as it stands in the map; one that equals the name before it is stored once. */
struct run {
    uint64_t offset; /* into shard_names */
    uint32_t bytes;
    uint32_t shard; /* its number among the sorted names, set at the end */
};

struct parser {
    struct json_reader reader;
    struct index_entry *entries; /* `shard` is the number of the run until the end */
    size_t entry_count;
    size_t entry_capacity;
    struct run *runs;
    size_t run_count;
    size_t run_capacity;
    struct text names;
    struct text shard_names;
    struct text word;
};

void index_release(struct index *index)
{
    for (size_t i = 0; i < index->shard_count; i++)
        free(index->shard_names[i]);
    free(index->shard_names);
    free(index->entries);
    free(index->names);
    *index = (struct index){ 0 };
}

/* The run of the decoded shard name in `word`: the newest one or a new one. */
static int add_shard_name(struct parser *parser, struct error *err)
{
    const struct text *word = &parser->word;
    const struct run *newest = parser->run_count ? &parser->runs[parser->run_count - 1] : NULL;
    struct run run = { .offset = parser->shard_names.bytes, .bytes = (uint32_t)word->bytes };

    if (newest && newest->bytes == word->bytes &&
        memcmp(parser->shard_names.data + newest->offset, word->data, word->bytes) == 0)
        return 0;
    if (parser->run_count == parser->run_capacity) {
        struct run *more = array_grow(parser->runs, &parser->run_capacity, sizeof(*more));

        if (!more)
            return error_no_memory(err, "the shard names of an index");
        parser->runs = more;
    }
    text_add(&parser->shard_names, word->data, word->bytes);
    text_add(&parser->shard_names, "", 1);
    if (parser->shard_names.failed)
        return error_no_memory(err, "the shard names of an index");
    parser->runs[parser->run_count++] = run;
    return 0;
}

static int add_entry(struct parser *parser, struct index_entry entry, struct error *err)
{
    int status = add_shard_name(parser, err);

    if (status)
        return status;
    if (parser->entry_count == parser->entry_capacity) {
        struct index_entry *more = array_grow(parser->entries, &parser->entry_capacity,
                                              sizeof(*more));

        if (!more)
            return error_no_memory(err, "the entries of an index");
        parser->entries = more;
    }
    entry.shard = (uint32_t)(parser->run_count - 1);
    parser->entries[parser->entry_count++] = entry;
    return 0;
}

static int bad_entry(const char *name, size_t name_bytes, const char *what, struct error *err)
{
    char quoted[QUOTED_BYTES];

    return error_set(err, ERR_FORMAT, "weight_map, tensor '%s': %s",
                     error_quote(quoted, sizeof(quoted), name, name_bytes), what);
}

static int read_shard_name(struct parser *parser, const char *name, size_t name_bytes,
                           struct error *err)
{
    struct text *word = &parser->word;
    char quoted[QUOTED_BYTES];
    char what[QUOTED_BYTES + 100];
    struct json_token token;
    int status = json_next(&parser->reader, &token, err);

    if (status)
        return status;
    if (token.kind != JSON_STRING)
        return bad_entry(name, name_bytes, "its shard is not a string", err);
    text_clear(word);
    json_string_decode(&token, word);
    if (word->failed)
        return error_no_memory(err, "the shard names of an index");
    if (model_name_is_safe(word->data, word->bytes))
        return 0;
    error_quote(quoted, sizeof(quoted), word->data, word->bytes);
    snprintf(what, sizeof(what), "its shard '%s' is not a plain name inside the directory", quoted);
    return bad_entry(name, name_bytes, what, err);
}

/* One member of weight_map: the name is `key`, the shard comes next. */
static int read_entry(struct parser *parser, const struct json_token *key, struct error *err)
{
    struct index_entry entry = { .name_offset = parser->names.bytes };
    const char *name;
    size_t name_bytes;
    int status;

    json_string_decode(key, &parser->names);
    name_bytes = parser->names.bytes - entry.name_offset;
    text_add(&parser->names, "", 1);
    if (parser->names.failed)
        return error_no_memory(err, "the names of an index");
    name = parser->names.data + entry.name_offset;
    if (name_bytes > ST_NAME_BYTES_MAX)
        return error_set(err, ERR_FORMAT,
                         "weight_map has a tensor name of %zu bytes, at most %u are accepted",
                         name_bytes, ST_NAME_BYTES_MAX);
    if (memchr(name, '\0', name_bytes))
        return bad_entry(name, name_bytes, "the name contains NUL", err);
    status = read_shard_name(parser, name, name_bytes, err);
    entry.name_bytes = (uint32_t)name_bytes;
    return status ? status : add_entry(parser, entry, err);
}

static int read_weight_map(struct parser *parser, struct error *err)
{
    struct json_token token;
    int status = json_next(&parser->reader, &token, err);

    if (status)
        return status;
    if (token.kind != JSON_OBJECT_BEGIN)
        return error_set(err, ERR_FORMAT, "weight_map is not an object");
    while (!(status = json_next(&parser->reader, &token, err)) && token.kind != JSON_OBJECT_END) {
        status = read_entry(parser, &token, err);
        if (status)
            return status;
    }
    if (!status && parser->entry_count == 0)
        status = error_set(err, ERR_FORMAT, "weight_map is empty");
    return status;
}

static int read_all(struct parser *parser, struct error *err)
{
    struct json_token token;
    bool map_seen = false;
    int status = json_next(&parser->reader, &token, err);

    if (status)
        return status;
    if (token.kind != JSON_OBJECT_BEGIN)
        return error_set(err, ERR_FORMAT, "the index is not a JSON object");
    while (!(status = json_next(&parser->reader, &token, err)) && token.kind != JSON_OBJECT_END) {
        if (json_string_is(&token, "weight_map")) {
            if (map_seen)
                return error_set(err, ERR_FORMAT, "weight_map appears twice");
            map_seen = true;
            status = read_weight_map(parser, err);
        } else {
            status = json_next(&parser->reader, &token, err);
            if (!status)
                status = json_skip(&parser->reader, &token, err);
        }
        if (status)
            return status;
    }
    if (!status)
        status = json_next(&parser->reader, &token, err);
    if (!status && !map_seen)
        status = error_set(err, ERR_FORMAT, "the index has no weight_map");
    return status;
}

static int check_duplicates(const struct parser *parser, struct error *err)
{
    struct name_key *keys = calloc(parser->entry_count, sizeof(*keys));
    char quoted[QUOTED_BYTES];
    size_t place;
    int status = 0;

    if (!keys)
        return error_no_memory(err, "the names of an index");
    for (size_t i = 0; i < parser->entry_count; i++)
        keys[i] = (struct name_key){ parser->names.data + parser->entries[i].name_offset,
                                     parser->entries[i].name_bytes, (uint32_t)i };
    name_keys_sort(keys, parser->entry_count);
    place = name_keys_duplicate(keys, parser->entry_count);
    if (place)
        status = error_set(
            err, ERR_FORMAT, "weight_map names tensor '%s' twice",
            error_quote(quoted, sizeof(quoted), keys[place].name, keys[place].bytes));
    free(keys);
    return status;
}

/* The distinct shard names, sorted, and the number of its shard into every entry. */
static int number_shards(struct parser *parser, struct index *index, struct error *err)
{
    struct name_key *keys = calloc(parser->run_count, sizeof(*keys));
    size_t distinct = 0;
    int status = 0;

    if (!keys)
        return error_no_memory(err, "the shard names of an index");
    for (size_t i = 0; i < parser->run_count; i++)
        keys[i] = (struct name_key){ parser->shard_names.data + parser->runs[i].offset,
                                     parser->runs[i].bytes, (uint32_t)i };
    name_keys_sort(keys, parser->run_count);
    for (size_t i = 0; i < parser->run_count; i++) {
        if (i == 0 || strcmp(keys[i].name, keys[distinct - 1].name) != 0)
            keys[distinct++] = keys[i]; /* the first of every name moves to the front */
        parser->runs[keys[i].index].shard = (uint32_t)(distinct - 1);
    }
    for (size_t i = 0; i < parser->entry_count; i++)
        parser->entries[i].shard = parser->runs[parser->entries[i].shard].shard;

    if (distinct > MODEL_SHARDS_MAX)
        status = error_set(err, ERR_FORMAT, "the index names %zu shards, at most %u are accepted",
                           distinct, MODEL_SHARDS_MAX);
    else
        index->shard_names = calloc(distinct, sizeof(*index->shard_names));
    while (!status && index->shard_count < distinct) {
        char *name = index->shard_names ? strdup(keys[index->shard_count].name) : NULL;

        if (name)
            index->shard_names[index->shard_count++] = name;
        else
            status = error_no_memory(err, "the shard names of an index");
    }
    free(keys);
    return status;
}

int index_parse(struct index *out, const char *json, size_t bytes, struct error *err)
{
    struct parser parser = { 0 };
    struct index index = { 0 };
    int status;

    if (bytes > INDEX_BYTES_MAX)
        return error_set(err, ERR_FORMAT, "an index of %zu bytes, at most %u are accepted", bytes,
                         INDEX_BYTES_MAX);
    json_reader_init(&parser.reader, json, bytes, JSON_PYTHON);
    status = read_all(&parser, err);
    if (!status)
        status = check_duplicates(&parser, err);
    if (!status)
        status = number_shards(&parser, &index, err);
    if (!status) {
        index.entries = parser.entries;
        index.entry_count = parser.entry_count;
        index.names_bytes = parser.names.bytes;
        index.names = text_take(&parser.names);
        *out = index;
    } else {
        index_release(&index);
        free(parser.entries);
    }
    free(parser.runs);
    text_release(&parser.names);
    text_release(&parser.shard_names);
    text_release(&parser.word);
    return status;
}

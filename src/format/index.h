/*
 * index.h - model.safetensors.index.json: which tensor is in which shard
 *
 * Parsed with a tokenizer into flat arrays (100,000 tensors must not cost a JSON
 * tree) and written as transformers writes it: indent 2, sorted keys.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_INDEX_H
#define FORMAT_INDEX_H

#include "base/error.h"
#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

#define INDEX_BYTES_MAX 100000000u /* of the file, as for a safetensors header */

struct index_entry {
    uint64_t name_offset; /* into names; NUL-terminated there */
    uint32_t name_bytes;
    uint32_t shard; /* index into shard_names */
};

struct index {
    struct index_entry *entries; /* in the order of the file */
    size_t entry_count;
    char *names;
    size_t names_bytes;
    char **shard_names; /* distinct, sorted by strcmp */
    size_t shard_count;
};

/*
 * Parse an index.  ERR_FORMAT: not JSON, no weight_map, a value that is not a string, an unsafe
 * shard name (model_name_is_safe()), a duplicate tensor, an empty map, too many shards.
 */
int index_parse(struct index *out, const char *json, size_t bytes, struct error *err);
void index_release(struct index *index);

/* One line of weight_map, names sorted by bytes before the call. */
struct index_line {
    const char *name;
    const char *shard;
};

/* Append the whole document: metadata.total_parameters, metadata.total_size, weight_map. */
void index_emit(struct text *out, const struct index_line *lines, size_t line_count,
                uint64_t total_size_bytes, uint64_t total_parameters);

#endif

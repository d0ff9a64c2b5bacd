/*
 * model.h - a base model: its shards, and all their tensors under one set of names
 *
 * A base is a directory with config.json and either model.safetensors or
 * model.safetensors.index.json and the shards that the index names, or one
 * .safetensors file alone.  Other weight files in the directory (stale shards,
 * consolidated*.safetensors, *.bin) are not part of it and are only listed.
 * Without an index and without model.safetensors, a single other .safetensors
 * file in the directory that is not an adapter or consolidated* is taken; more
 * than one is an error that lists them.
 *
 * Names in an index are checked lexically and never leave the directory; links
 * are followed, since every shard in the Hugging Face cache is one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_MODEL_H
#define FORMAT_MODEL_H

#include "base/error.h"
#include "base/log.h"
#include "format/safetensors.h"
#include "io/file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_SHARDS_MAX 100000u

struct model_shard {
    char *name; /* file name inside the directory */
    char *path; /* to open */
    struct st_header header;
    struct file_identity identity; /* as it was when the header was read */
    uint64_t header_digest[2];     /* XXH3-128 (low, high) of the prefix and JSON */
};

/* Where a tensor of the model is. */
struct model_ref {
    uint32_t shard;
    uint32_t tensor; /* index in that shard's header */
};

struct model {
    char *directory;            /* NULL if the base is a single file outside a model directory */
    struct model_shard *shards; /* in the order of their names */
    size_t shard_count;
    size_t tensor_count; /* over all shards */
    uint64_t data_bytes; /* over all shards */
    bool has_index;
    char **ignored; /* weight files of the directory that are not part of the model */
    size_t ignored_count;

    struct model_ref *by_name; /* all tensors, sorted by the bytes of their names */
};

/*
 * Open a directory or a file.  Every header is read and checked; with an index, every tensor must
 * be in the shard that the index names and the index must name every tensor of its shards
 * (ERR_FORMAT otherwise, with name and file).  ERR_FORMAT are also: a tensor in two shards, a
 * shard that is not there, dangling links and loops of links, and a path that holds something else
 * than a base (an adapter, pickles, GGUF, shards without an index), which is then named.
 * ERR_USAGE if `path` is not there.
 *
 * A single file has the directory that it lies in if that holds config.json; whether a directory
 * holds one is not checked here.  Files left out are said to `log` as details; a model.safetensors
 * that the index does not name is a warning.
 *
 * On success the caller releases *out; on failure it is unchanged.
 */
int model_open(struct model *out, const char *path, const struct log *log, struct error *err);
void model_release(struct model *model); /* an all-zero model is allowed */

/* The tensor of this name; false if there is none. */
bool model_find(const struct model *model, const char *name, size_t name_bytes,
                struct model_ref *out);

static inline const struct st_header *model_header(const struct model *model, struct model_ref ref)
{
    return &model->shards[ref.shard].header;
}

static inline const struct st_tensor *model_tensor(const struct model *model, struct model_ref ref)
{
    return &model->shards[ref.shard].header.tensors[ref.tensor];
}

/*
 * The names of the model nearest to `name` (edit distance in bytes, same length of name preferred),
 * nearest first, at most `count` and at most MODEL_NEAREST_MAX; returns how many there are, which
 * may be none when nothing is near.  For the sentences of refusals.
 */
#define MODEL_NEAREST_MAX 16u
size_t model_nearest(const struct model *model, const char *name, struct model_ref *out,
                     size_t count);

/*
 * A file name from an index or a Hub reply: relative, one component or more without "." and "..",
 * no NUL, no backslash, no control character, at most 255 bytes a component.  False otherwise.
 */
bool model_name_is_safe(const char *name, size_t name_bytes);

#endif

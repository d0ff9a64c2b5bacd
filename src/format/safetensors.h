/*
 * safetensors.h - the header of a safetensors file, parsed into flat arrays and emitted
 *
 * A file is: 8 bytes little-endian length N, N bytes of JSON, data.  The reader
 * is as strict as the reference (safetensors 0.8, tensor.rs) and also refuses
 * duplicate names and duplicate keys of __metadata__, names with NUL or longer
 * than ST_NAME_BYTES_MAX, more than ST_RANK_MAX dimensions, and entries that are
 * not objects.  A header of 100,000 tensors must fit in a few tens of MB, which is
 * why it is not a JSON tree.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_SAFETENSORS_H
#define FORMAT_SAFETENSORS_H

#include "base/dtype.h"
#include "base/error.h"
#include "base/text.h"
#include "io/file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ST_PREFIX_BYTES 8u
#define ST_HEADER_BYTES_MAX UINT64_C(100000000) /* tensor.rs MAX_HEADER_SIZE */
#define ST_RANK_MAX 16u                         /* dimensions of one tensor that we accept */
#define ST_NAME_BYTES_MAX 4096u

struct st_tensor {
    uint64_t name_offset; /* into st_header.names; NUL-terminated there */
    uint32_t name_bytes;
    uint16_t dtype;        /* enum dtype */
    uint16_t shape_count;  /* dimensions, 0 for a scalar */
    uint64_t shape_offset; /* into st_header.shapes */
    uint64_t data_offset;  /* from the start of the data, in bytes */
    uint64_t data_bytes;
    uint64_t element_count; /* product of the shape; 1 for a scalar */
};

/*
 * Tensors are in the order of their data (begin, then end, then as in the JSON); they leave no
 * hole and do not overlap.
 */
struct st_header {
    struct st_tensor *tensors;
    size_t tensor_count;
    char *names;
    size_t names_bytes;
    uint64_t *shapes;
    size_t shapes_count;
    char *metadata; /* raw text of the __metadata__ object, NUL-terminated, or NULL */
    size_t metadata_bytes;
    uint64_t data_start; /* offset in the file: 8 + N */
    uint64_t data_bytes;

    /* Only from st_header_read(). */
    uint64_t digest[2];            /* XXH3-128 (low, high) of the prefix and the JSON */
    struct file_identity identity; /* of the file, when it was opened */
};

/*
 * Parse the JSON of `header_bytes` at `json`; `data_bytes` is what the file has behind it.
 * ERR_FORMAT names the tensor, the field and the limit.  On success the caller releases *out.
 */
int st_header_parse(struct st_header *out, const char *json, size_t header_bytes,
                    uint64_t data_bytes, struct error *err);

/*
 * Read and parse the header of the file at `path` (links are followed); sentences name the path.
 * `file_bytes`, which may be NULL, receives the size of the file.  ERR_USAGE: not there.
 * ERR_FORMAT: damaged, truncated, not a regular file, or another format, which is then named.
 */
int st_header_read(struct st_header *out, const char *path, uint64_t *file_bytes,
                   struct error *err);

/* Have two tensors of one file the same dtype, shape and bytes?  Reads them. */
int st_same_data(bool *same, const char *path, const struct st_header *header, uint32_t one,
                 uint32_t other, struct error *err);

void st_header_release(struct st_header *header); /* an all-zero header is allowed */

static inline const char *st_name(const struct st_header *header, const struct st_tensor *tensor)
{
    return header->names + tensor->name_offset;
}

static inline const uint64_t *st_shape(const struct st_header *header,
                                       const struct st_tensor *tensor)
{
    return header->shapes + tensor->shape_offset;
}

/*
 * Emit one header piece by piece into a text, compact JSON as the Python library writes it:
 * begin, one entry per tensor in the order of the data, end.  `metadata` is the raw text of an
 * object or NULL for {"format":"pt"}; if it lacks "format", "format":"pt" is put in front.
 * st_emit_end() closes the object and pads it with spaces until 8 + length is congruent to
 * `residue` modulo `modulus` (a power of two; 0 and 8 for the usual padding).  The length prefix
 * is not part of the text.
 */
void st_emit_begin(struct text *out, const char *metadata, size_t metadata_bytes);
void st_emit_tensor(struct text *out, const char *name, size_t name_bytes, enum dtype dtype,
                    const uint64_t *shape, size_t shape_count, uint64_t data_offset,
                    uint64_t data_bytes);
void st_emit_end(struct text *out, uint64_t residue, uint64_t modulus);

#endif

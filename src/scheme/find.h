/*
 * find.h - what the files that recognise quantised tensors share
 *
 * A recogniser gets an anchor, a tensor whose name ends as that of codes of its family (or of a
 * companion that the family always has), takes the companions and adds one item to the find.  Every
 * tensor of the model is free, a companion, or the codes of one item.
 *
 * The struct error that these functions get has code 0.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef SCHEME_FIND_H
#define SCHEME_FIND_H

#include "base/text.h"
#include "scheme/config.h"
#include "scheme/scheme.h"

#define FIND_FREE UINT32_MAX
#define FIND_COMPANION (UINT32_MAX - 1)

#define DTYPE_MASK(dtype) (UINT32_C(1) << (dtype))
#define MASK_16 (DTYPE_MASK(DTYPE_BF16) | DTYPE_MASK(DTYPE_F16))
#define MASK_COMPUTED (MASK_16 | DTYPE_MASK(DTYPE_F32))
#define MASK_E8M0 (DTYPE_MASK(DTYPE_F8_E8M0) | DTYPE_MASK(DTYPE_U8))
#define MASK_ANY UINT32_MAX

/* A tensor of the view that differs from what is stored. */
struct scheme_item {
    struct model_ref codes;
    size_t name_offset; /* into find.names */
    size_t name_bytes;
    size_t shape_offset; /* into find.shapes */
    size_t shape_count;
    enum dtype dtype;
    struct scheme_tensor tensor;
};

struct scheme_find {
    const struct model *model;
    struct scheme_config config;
    const struct log *log;

    size_t *first;     /* of each shard: how many tensors the shards before it have */
    uint32_t *item_of; /* of each tensor of the model: FIND_FREE, FIND_COMPANION, or its item */
    struct scheme_item *items;
    size_t item_count;
    size_t item_capacity;
    size_t companion_count;
    struct text names;
    uint64_t *shapes;
    size_t shape_count;
    size_t shape_capacity;

    struct text name; /* of the sibling that is looked for */
    struct file *files;
    size_t open_count;
};

struct scheme_anchor {
    struct model_ref ref; /* of the codes */
    const char *stem;     /* the name without the suffix of its family; not terminated */
    size_t stem_bytes;
};

int find_init(struct scheme_find *find, const struct model *model, const struct log *log,
              struct error *err);
void find_release(struct scheme_find *find); /* an all-zero find is allowed */

/* ERR_FORMAT: "tensor 'NAME': " and the sentence. */
int find_refuse(const struct scheme_find *find, struct model_ref ref, struct error *err,
                const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The tensor named stem + suffix; false: there is none, or no memory for the name. */
bool find_sibling(struct scheme_find *find, const char *stem, size_t stem_bytes, const char *suffix,
                  struct model_ref *out);

/* The same of an anchor's stem; missing is ERR_FORMAT. */
int find_need(struct scheme_find *find, const struct scheme_anchor *anchor, const char *suffix,
              struct model_ref *out, struct error *err);

/*
 * Make a tensor the companion of the anchor.  ERR_FORMAT: its dtype is not in `dtypes`
 * (DTYPE_MASK), its shape is not the given one (NULL: any), or it belongs to another weight.  `out`
 * may be NULL.
 */
int find_take(struct scheme_find *find, const struct scheme_anchor *anchor, struct model_ref ref,
              uint32_t dtypes, const uint64_t *shape, size_t shape_count, struct scheme_part *out,
              struct error *err);

/* The same for one finite number of any rank; the dtypes are among BF16, F16 and F32. */
int find_take_scalar(struct scheme_find *find, const struct scheme_anchor *anchor,
                     struct model_ref ref, uint32_t dtypes, struct scheme_part *out, float *value,
                     struct error *err);

/* Take the companion of this suffix if it is there. */
int find_take_if(struct scheme_find *find, const struct scheme_anchor *anchor, const char *suffix,
                 uint32_t dtypes, struct error *err);

/* The first `bytes` of a tensor's data; it has as many. */
int find_read(struct scheme_find *find, struct model_ref ref, void *buf, size_t bytes,
              struct error *err);

/*
 * The item of an anchor: stem + suffix of this shape.  Its matrix is checked against the codes and
 * `tensor->parts`, whose codes are filled in here.
 */
int find_add(struct scheme_find *find, const struct scheme_anchor *anchor, const char *suffix,
             const uint64_t *shape, size_t shape_count, struct scheme_tensor *tensor,
             struct error *err);

/* Is the stem a linear layer of GPT-2 or its like, whose 16-bit weight is stored [in, out]? */
bool find_is_conv1d(const struct scheme_find *find, const struct scheme_anchor *anchor);

/* The same for a tensor that is only renamed. */
int find_rename(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);

/* Which tensor of the model it is, for item_of. */
static inline size_t find_place(const struct scheme_find *find, struct model_ref ref)
{
    return find->first[ref.shard] + ref.tensor;
}

/* "[2, 3]" in a buffer, for sentences; long ones are cut. */
#define SHAPE_BYTES 96
const char *shape_print(char buf[SHAPE_BYTES], const uint64_t *shape, size_t count);

#endif

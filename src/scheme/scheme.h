/*
 * scheme.h - which tensors of a base are quantised, and how
 *
 * A quantised weight is codes and companions under names of their own, perhaps in
 * different shards.  scheme_read_base() finds them and gives a view: the model as it
 * would look in 16 bits, one tensor "x.weight" with its logical shape and the dtype
 * that decoding gives, without companions.  Names, adapters and plans work on the
 * view; only the reading of bytes asks how a tensor is really stored.
 *
 * Found per tensor from dtypes and names of siblings; the configuration is asked
 * only for what headers cannot say (block sizes, bits, versions).
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef SCHEME_SCHEME_H
#define SCHEME_SCHEME_H

#include "base/error.h"
#include "base/log.h"
#include "compute/quant.h"
#include "format/model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes in a shard.  `bytes` 0: there is no such part. */
struct scheme_part {
    uint32_t shard;
    enum dtype dtype;
    uint64_t offset; /* in the file */
    uint64_t bytes;
};

enum scheme_kind {
    SCHEME_PLAIN, /* as it stands */
    SCHEME_BNB4,
    SCHEME_BNB8,
    SCHEME_FP8_BLOCK,
    SCHEME_FP8_CHANNEL, /* one scale per row or per tensor */
    SCHEME_MXFP4,
    SCHEME_NVFP4,
    SCHEME_PACKED, /* compressed-tensors, 2 to 8 bits in words */
    SCHEME_INT8,
    SCHEME_GPTQ,
    SCHEME_AWQ,
    SCHEME_HQQ,
    SCHEME_TORCHAO,
    SCHEME_MLX
};

/* One tensor of the view. */
struct scheme_tensor {
    enum scheme_kind kind;
    struct quant_matrix matrix;                 /* unless SCHEME_PLAIN; has passed quant_check() */
    struct scheme_part parts[QUANT_PART_COUNT]; /* codes, scales, zeros */

    /* For struct quant_whole. */
    struct scheme_part map;    /* F32 [256], nested */
    struct scheme_part nested; /* F32 [ceil(blocks / 256)] */
    struct scheme_part group_of;
    struct scheme_part whole; /* F32, one for each matrix */
    float nested_offset;
    uint64_t block_elements; /* of a flat scheme (bitsandbytes), for writing it again */
};

struct scheme_base {
    bool quantised;    /* false: nothing else is set, the model is used as it is */
    struct model view; /* shards, paths and identities of the model; other tensors */
    struct scheme_tensor *tensors; /* as those of the view: shards in order, tensors in order */
    uint32_t *stored; /* for each of them: which tensor of its shard in the model has the codes */
    size_t quantised_count;
    size_t companion_count; /* tensors of the model that the view does not have */
    char summary[128];      /* "bitsandbytes nf4, 224 tensors", for people */
};

/*
 * Look at every header.  `config` is the base's config.json (or NULL), `extra` hf_quant_config.json
 * (or NULL).  ERR_FORMAT names tensor and companion: a companion that is missing or has another
 * shape or dtype, damaged quant_state, a scheme that is not decoded (by its name, with the way
 * out).  Values of small companions (quant_state, scalars) are read from the files.  On success the
 * caller releases *out; strings and paths in it are its own, the model may be released.
 */
int scheme_read_base(struct scheme_base *out, const struct model *model, const char *config,
                     size_t config_bytes, const char *extra, size_t extra_bytes,
                     const struct log *log, struct error *err);
void scheme_release(struct scheme_base *base); /* an all-zero base is allowed */

#endif

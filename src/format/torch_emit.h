/*
 * torch_emit.h - the bytes of a torch.save() file around those of its tensors
 *
 * Such a file is a head with the pickle, which says what the tensors are; their storages, each an
 * entry of a ZIP archive that is stored as it is; and a tail with the directory of the archive.
 * Before a storage lies its seam: the checksum of the storage before it, a local header, padding.
 * All places follow from names, shapes and dtypes, so they are known before the first storage is
 * made; only checksums come later.
 *
 * The archive is that of torch 2.x, but without its record ".format_version": that would promise
 * that every storage begins at the first multiple of 64 behind its header.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_TORCH_EMIT_H
#define FORMAT_TORCH_EMIT_H

#include "base/dtype.h"
#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TORCH_ALIGNMENT UINT64_C(64) /* of storages in the file */

/* ---- the pickle: a dict of tensors, piece by piece ---- */

#define TORCH_WORDS (6 + DTYPE_COUNT)

struct torch_pickle {
    struct text *out;
    uint8_t memo[TORCH_WORDS]; /* of what is said more than once: its place in the memo, from 1 */
    uint8_t memo_count;
};

/* False: torch has no such dtype. */
bool torch_emit_knows(enum dtype dtype);

void torch_emit_begin(struct torch_pickle *pickle, struct text *out);

/* A tensor that has storage `storage` for itself, or shares all of it with another name. */
void torch_emit_tensor(struct torch_pickle *pickle, const char *name, size_t name_bytes,
                       enum dtype dtype, const uint64_t *shape, size_t shape_count,
                       uint64_t storage);
void torch_emit_end(struct torch_pickle *pickle);

/* ---- the archive ---- */

struct torch_record {
    uint64_t offset; /* in the file */
    uint64_t bytes;
    uint32_t checksum;
};

/* What head, seams and tail are made of. */
struct torch_frame {
    uint64_t pickle_bytes;
    uint32_t pickle_checksum;
    uint64_t record_count; /* storages, one or more */
    struct torch_record (*record)(const void *context, uint64_t number);
    const void *context;
};

/* The whole head of a file with this pickle. */
void torch_emit_head(struct text *out, const char *pickle, size_t pickle_bytes);

/*
 * Where storage `number` begins: the first place behind its seam that is congruent to `residue`
 * modulo `modulus`, a power of two.  `end` is where the storage before it, of `before_bytes`, ends,
 * or the head.
 */
uint64_t torch_record_offset(uint64_t number, uint64_t bytes, uint64_t end, uint64_t before_bytes,
                             uint64_t residue, uint64_t modulus);

/*
 * Write those of the bytes [first, end) of the file that are the seam of storage `number`, or the
 * tail, to out[0] and on, where `first` goes.  The seam needs the checksum of the storage before
 * it, the tail all of them.
 */
void torch_emit_seam(const struct torch_frame *frame, uint64_t number, uint64_t first, uint64_t end,
                     uint8_t *out);
void torch_emit_tail(const struct torch_frame *frame, uint64_t first, uint64_t end, uint8_t *out);

uint64_t torch_tail_bytes(const struct torch_frame *frame);

#endif

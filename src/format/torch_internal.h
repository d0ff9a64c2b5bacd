/*
 * torch_internal.h - the parts of the reader of torch.save() files
 *
 * Only for torch_*.c and their tests.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_TORCH_INTERNAL_H
#define FORMAT_TORCH_INTERNAL_H

#include "base/dtype.h"
#include "base/error.h"
#include "format/safetensors.h"
#include "io/file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TORCH_RESAVE "save it again as safetensors with save_pretrained() of PEFT"

/* Bytes at any offset: of a file, or of memory where `file` is NULL. */
struct torch_source {
    const struct file *file;
    const uint8_t *memory;
    uint64_t bytes;
};

/* Read exactly `bytes`; ERR_FORMAT where the source has fewer. */
int torch_source_read(const struct torch_source *source, void *buf, size_t bytes, uint64_t offset,
                      struct error *err);

/* Fill *out from a source; identity stays zero.  On success the caller releases *out. */
int torch_parse(struct st_header *out, const struct torch_source *source, struct error *err);

/* ---- the archive ---- */

struct torch_entry {
    const char *name; /* in torch_zip.directory, without NUL */
    uint32_t name_bytes;
    uint16_t method;        /* 0: stored without compression */
    uint64_t header_offset; /* of its local header */
    uint64_t data_offset;
    uint64_t data_bytes;
};

struct torch_zip {
    char *directory; /* the central directory as it stands in the file */
    size_t directory_bytes;
    uint64_t directory_offset;
    struct torch_entry *entries; /* sorted by name, no two alike */
    size_t entry_count;
    const char *prefix; /* of every name, with its slash: in directory; NULL until it is known */
    size_t prefix_bytes;
};

struct torch_zip_place {
    uint64_t offset; /* in the file */
    uint64_t bytes;
    uint64_t entries;
};

/*
 * Where the central directory is, by the end of the archive: the last thing in the file but for a
 * comment.  Nothing of *out is checked.
 */
int torch_zip_locate(struct torch_zip_place *out, const struct torch_source *source,
                     struct error *err);

/*
 * The entries of an archive: each has a local header of the same name, and lies between the one
 * before and the one behind it.  ERR_FORMAT otherwise.
 */
int torch_zip_open(struct torch_zip *out, const struct torch_source *source, struct error *err);
void torch_zip_release(struct torch_zip *zip);

/* The entry <prefix><folder><name> to *out, or NULL where there is none; ERR_FORMAT if it is
 * compressed. */
int torch_zip_find(const struct torch_entry **out, const struct torch_zip *zip, const char *folder,
                   const char *name, size_t name_bytes, struct error *err);

/* ---- the pickle ---- */

struct torch_storage {
    const char *key; /* in the pickle */
    uint32_t key_bytes;
    bool untyped;     /* elements are bytes, and the tensor says its dtype */
    enum dtype dtype; /* where not untyped */
    uint64_t element_count;
};

struct torch_tensor {
    const char *name; /* in the pickle */
    uint32_t name_bytes;
    uint32_t storage; /* index in torch_state.storages */
    enum dtype dtype;
    uint16_t shape_count;
    size_t numbers;          /* in torch_state.numbers: the shape, then the strides in elements */
    uint64_t element_offset; /* in the storage */
};

struct torch_state {
    struct torch_tensor *tensors; /* in the order of the dict */
    size_t tensor_count;
    struct torch_storage *storages;
    size_t storage_count;
    uint64_t *numbers;
};

/*
 * Follow the pickle of a flat dict of tensors; nothing in it is run.  ERR_FORMAT names the byte of
 * the pickle and what is refused there.  Names and keys point into `pickle`.
 */
int torch_pickle_read(struct torch_state *out, const uint8_t *pickle, size_t bytes,
                      struct error *err);
void torch_state_release(struct torch_state *state);

/*
 * Tensors, names and shapes of *out from what pickle and archive say; the caller releases *out also
 * where this fails.
 */
int torch_place_tensors(struct st_header *out, const struct torch_state *state,
                        const struct torch_zip *zip, struct error *err);

#endif

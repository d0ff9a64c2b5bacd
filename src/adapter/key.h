/*
 * key.h - what the name of an adapter tensor says
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_KEY_H
#define ADAPTER_KEY_H

#include "adapter/adapter.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADAPTER_KEY_DEFAULT_NAME "default" /* what PEFT calls an adapter that nobody named */

enum adapter_key_kind {
    ADAPTER_KEY_A,
    ADAPTER_KEY_B,
    ADAPTER_KEY_B_BIAS,
    ADAPTER_KEY_MAGNITUDE,
    ADAPTER_KEY_SAVED,    /* stands for a tensor of the base */
    ADAPTER_KEY_ROWS,     /* stands for rows of one */
    ADAPTER_KEY_TRAINING, /* means something while training only */
    ADAPTER_KEY_OTHER     /* nothing that is folded */
};

/* How a saved tensor is spelled; where one is there in several forms, the first of them counts. */
enum adapter_key_form {
    ADAPTER_FORM_PLAIN,   /* <module>.weight, also with base_layer */
    ADAPTER_FORM_TO_SAVE, /* <module>.modules_to_save.default.weight */
    ADAPTER_FORM_ORIGINAL /* <module>.original_module.weight: the base's own, not the trained one */
};

struct adapter_key {
    enum adapter_key_kind kind;
    enum adapter_layer layer;   /* of A and B */
    enum adapter_key_form form; /* of SAVED */
    char *path;         /* runtime path of the module of factors, bias and magnitude; of SAVED and
                           ROWS, runtime name of the tensor; NULL of the others */
    size_t owner_bytes; /* the first bytes of `path` are a wrapped module that the rest lies in
                           ("mha" of "mha.out_proj"); 0: none */
    uint32_t depth;     /* how many "base_layer" stood behind the path */
    bool odd;           /* not spelled as PEFT writes it */
    const char *what;   /* of OTHER: "is ...", or NULL if only the spelling is wrong */
};

/*
 * `adapter_name`, or "default", may stand behind lora_A and its like, and behind modules_to_save.
 * Fails only for want of memory; on success the caller frees out->path.
 */
int adapter_key_read(struct adapter_key *out, const char *name, size_t bytes,
                     const char *adapter_name, struct error *err);

/*
 * Does the tensor `name` hold a factor?  Then *begin and *count are the adapter's name inside of
 * it; *count is 0 if there is none.
 */
bool adapter_key_find_name(const char *name, size_t bytes, const char **begin, size_t *count);

/* ERR_FORMAT for a key of kind OTHER: the tensor, and what it is or how it should be spelled. */
int adapter_key_refuse(const struct adapter_key *key, const char *name, size_t bytes,
                       struct error *err);

#endif

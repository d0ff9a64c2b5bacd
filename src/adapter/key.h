/*
 * key.h - what the name of an adapter tensor says
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_KEY_H
#define ADAPTER_KEY_H

#include "base/error.h"

#include <stddef.h>

enum adapter_key_kind {
    ADAPTER_KEY_A,
    ADAPTER_KEY_B,
    ADAPTER_KEY_BASE, /* the adapter's own copy of the tensor that the factors change */
    ADAPTER_KEY_OTHER /* nothing that is folded */
};

struct adapter_key {
    enum adapter_key_kind kind;
    const char *module; /* of a factor: inside the name, not NUL-terminated */
    size_t module_bytes;
    const char *what; /* of another tensor: "is ...", or NULL if only the spelling is wrong */
};

/*
 * Understood: base_model.model.<module>.lora_A.weight, .lora_B.weight, and with ".default", the
 * usual adapter name, before ".weight"; and <module>.base_layer.weight.
 */
void adapter_key_read(struct adapter_key *out, const char *name, size_t bytes);

/* ERR_FORMAT: the tensor, and what it is or how it would have to be spelled. */
int adapter_key_refuse(const struct adapter_key *key, const char *name, size_t bytes,
                       struct error *err);

#endif

/*
 * spelling.h - the tensors of an adapter under the names that PEFT writes
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_SPELLING_H
#define ADAPTER_SPELLING_H

#include "adapter/adapter.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct adapter_spelled {
    char *name;      /* "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" */
    uint32_t tensor; /* index in header.tensors */
    uint64_t offset; /* its data_offset */
};

/*
 * The tensors that PEFT would save of this adapter, in the order of their bytes in the file: all
 * but those that are listed as unused and copies that do not count.  ERR_FORMAT: two would have one
 * name.  On success the caller frees the list with adapter_free_spelled().
 */
int adapter_spell(struct adapter_spelled **out, size_t *count, const struct adapter *adapter,
                  struct error *err);
void adapter_free_spelled(struct adapter_spelled *list, size_t count);

#endif

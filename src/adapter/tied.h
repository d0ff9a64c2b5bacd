/*
 * tied.h - bases that hold one tensor for the input embedding and the output head
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_TIED_H
#define ADAPTER_TIED_H

#include "base/error.h"
#include "format/config_text.h"
#include "format/model.h"

#include <stdbool.h>
#include <stddef.h>

#define TIED_USES_MAX 8u

/* The embeddings and heads that a base holds; counts above TIED_USES_MAX say that more exist. */
struct tied_uses {
    bool tied; /* the configuration ties them, or leaves that to the model's code */
    struct model_ref embeddings[TIED_USES_MAX];
    size_t embedding_count;
    struct model_ref heads[TIED_USES_MAX];
    size_t head_count;
};

void tied_read_uses(struct tied_uses *out, const struct model *model,
                    const struct config_facts *facts);

/* Is a vector of this name the bias of an output head? */
bool tied_is_head_bias(const char *name, size_t bytes);

/* Does the tensor stand for a head too, which the base does not hold? */
bool tied_is_shared(const struct tied_uses *uses, const struct model *model, struct model_ref ref);

/*
 * The name that the head of the embedding `ref` has in a base that holds both.  The caller frees
 * *out.
 */
int tied_head_name(char **out, const struct model *model, struct model_ref ref,
                   const struct config_facts *facts, struct error *err);

#endif

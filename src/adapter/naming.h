/*
 * naming.h - the names that a tensor of the runtime model may have in a base on disk
 *
 * An adapter's keys are paths of the model in Python, in the version of transformers that it was
 * trained with; the names in a base's files are often others.  naming.c holds one table of rules.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_NAMING_H
#define ADAPTER_NAMING_H

#include "base/error.h"
#include "format/model.h"

#include <stddef.h>
#include <stdint.h>

#define NAMING_FOUND_MAX 32u

struct naming_found {
    struct model_ref ref;
    uint32_t tier; /* 0: the name itself; then rules of renaming, prefixes, ends of names */
};

/*
 * The tensors of the base that the runtime name ("model.layers.0.mlp.up_proj.weight") may stand
 * for, each once, of the lowest tier that has any.  The caller drops those whose shape does not
 * fit; two that are left are ambiguous.  More than NAMING_FOUND_MAX: the first ones.
 */
int naming_find(struct naming_found out[NAMING_FOUND_MAX], size_t *count, const struct model *model,
                const char *name, size_t bytes, struct error *err);

/* ERR_MISMATCH: the base has no such tensor; names the nearest ones. */
int naming_refuse_unknown(const struct model *model, const char *name, size_t bytes,
                          struct error *err);

/* ERR_MISMATCH: several tensors may be meant; names them. */
int naming_refuse_several(const struct model *model, const char *name, size_t bytes,
                          const struct naming_found *found, size_t count, struct error *err);

#endif

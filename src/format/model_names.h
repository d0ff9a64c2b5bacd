/*
 * model_names.h - the names of all shards of a model as one set
 *
 * Only for model.c and src/scheme, which rewrites names.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_MODEL_NAMES_H
#define FORMAT_MODEL_NAMES_H

#include "base/error.h"
#include "format/index.h"
#include "format/model.h"

/* Fill in `by_name`; a tensor in two shards and a model without tensors are ERR_FORMAT. */
int model_sort_tensors(struct model *model, struct error *err);

/* The index and the sorted tensors must say the same, else ERR_FORMAT. */
int model_compare_index(const struct model *model, const struct index *index, struct error *err);

#endif

/*
 * naming_internal.h - what the files of naming share
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_NAMING_INTERNAL_H
#define ADAPTER_NAMING_INTERNAL_H

#include "adapter/naming.h"

#include <stdbool.h>

enum naming_tier { NAMING_ITSELF, NAMING_RULE, NAMING_PREFIX, NAMING_END };

/* A name that is longer is not spelled anew; in transformers' models the longest have some 150. */
#define SPELLED_BYTES_MAX 256u

/*
 * Tensors whose names rules make of `name`, with as many as `prefixes` components put before it or
 * dropped there; returns how many.
 */
size_t naming_find_spelled(struct naming_found out[NAMING_FOUND_MAX], const struct model *model,
                           const char *name, size_t bytes, unsigned prefixes);

/* Tensors whose names have more or fewer components before the first number. */
size_t naming_find_ends(struct naming_found out[NAMING_FOUND_MAX], const struct model *model,
                        const char *name, size_t bytes);

/* The first place of model.by_name in [low, high) whose name is not below; or high. */
size_t naming_lower_bound(const struct model *model, size_t low, size_t high, const char *name,
                          size_t bytes);

/* The parts of a model, towers and coders, that a name speaks of: a set of bits. */
unsigned naming_parts(const char *name, size_t bytes);

/* A text tower never stands for a vision tower, however alike their layers are. */
bool naming_parts_exclude(unsigned left, unsigned right);

#endif

/*
 * conv1d.h - which layers of a model are Conv1D of transformers, whose weight lies [in, out]
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_CONV1D_H
#define FORMAT_CONV1D_H

#include <stdbool.h>
#include <stddef.h>

enum conv1d {
    CONV1D_NO,
    CONV1D_YES,
    CONV1D_UNKNOWN /* a model type that is not listed */
};

/* Do models of this type have such layers? */
bool conv1d_in_type(const char *model_type);

/* Is a module of such a model one?  Only its last component counts. */
enum conv1d conv1d_of(const char *model_type, const char *module, size_t bytes);

#endif

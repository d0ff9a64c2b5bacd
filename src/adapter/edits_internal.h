/*
 * edits_internal.h - what the files that make edits share
 *
 * edits.c drives; edits_layers.c: linear, Conv1D, convolution, embedding, attention;
 * edits_saved.c: replaced tensors and rows; experts.c: experts, fused or one by one;
 * replicas.c: repeated layers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_EDITS_INTERNAL_H
#define ADAPTER_EDITS_INTERNAL_H

#include "adapter/edit.h"

/* What every maker of edits looks at. */
struct edits_context {
    struct adapter *adapter;
    const struct model *model;
    const struct edit_options *options;
    const struct adapter_replicas *replicas;
    const struct log *log;
};

/* Append a copy; what it owns belongs to the list then, also after a failure. */
int edits_add(struct adapter_edits *edits, const struct adapter_edit *edit, struct error *err);

/*
 * The edits of a pair whose module is an expert or a parameter that holds all experts, in either
 * base layout.  *handled is false, and nothing was added, if the pair is neither.
 */
int edits_of_experts(struct adapter_edits *edits, bool *handled,
                     const struct edits_context *context, uint32_t pair, struct error *err);

#endif

/*
 * edits_internal.h - what the files that make edits share
 *
 * edits.c drives; edits_check.c: what a list of edits must not hold; edits_find.c: places in the
 * base; tied.c: embeddings and heads that a base ties; edits_layers.c: linear, Conv1D, convolution,
 * embedding, attention; edits_saved.c: replaced tensors and rows; experts.c: experts, fused or one
 * by one; replicas.c: repeated layers.
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
    const struct tied_uses *uses; /* of the base */
    struct edits_notes *notes;
};

/* What is said once, however many modules it is about. */
struct edits_notes {
    size_t doubled_count; /* output projections of attention, which PEFT applies twice */
    size_t guessed_count; /* square weights that only fan_in_fan_out calls transposed */
};

/* Append a copy; what it owns belongs to the list then, also after a failure. */
int edits_add(struct adapter_edits *edits, const struct adapter_edit *edit, struct error *err);

/*
 * The edits of a pair whose module is an expert or a parameter that holds all experts, in either
 * base layout.  *handled is false, and nothing was added, if the pair is neither.
 */
int edits_of_experts(struct adapter_edits *edits, bool *handled,
                     const struct edits_context *context, uint32_t pair, struct error *err);

/* *placed is false, and nothing was added, if the base has no such tensor. */
int edits_of_layer(struct adapter_edits *edits, bool *placed, const struct edits_context *context,
                   uint32_t pair, struct error *err);
int edits_of_saved(struct adapter_edits *edits, bool *placed, const struct edits_context *context,
                   const struct adapter_saved *saved, struct error *err);

/* After all others: rows of a tied embedding are rows of the head too, unless that has its own. */
int edits_mirror_rows(struct adapter_edits *edits, struct error *err);

/* ERR_MISMATCH: two edits of one thing, with the names of both. */
int edits_check_twice(const struct adapter_edits *edits, const struct adapter *adapter,
                      struct error *err);

/* Is the edit of a tensor that the base lacks? */
static inline bool edits_is_new(const struct adapter_edit *edit)
{
    return edit->side == EDIT_UNTIED && edit->new_name;
}

/*
 * An embedding or head that the adapter gives another number of rows than the base's: the other one
 * must get them too.  Where the base ties both, the adapter's copy of one stands for the other and
 * is added; ERR_FORMAT where no such copy was saved.  So must the bias of a head.
 */
int edits_complete_rows(struct adapter_edits *edits, const struct edits_context *context,
                        struct error *err);

/* Quoted, for messages: the module or the adapter's tensor that an edit comes from. */
const char *edits_quote(char buf[QUOTED_BYTES], const struct adapter *adapter,
                        const struct adapter_edit *edit);

#endif

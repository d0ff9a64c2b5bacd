/*
 * edits_find.h - the place in the base of a tensor that an adapter names
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_EDITS_FIND_H
#define ADAPTER_EDITS_FIND_H

#include "adapter/edits_internal.h"

enum edits_answer {
    EDITS_FOUND,
    EDITS_NOT_THERE,  /* no tensor of that name */
    EDITS_OTHER_SHAPE /* `tensor` has the name, but does not fit */
};

struct edits_place {
    enum edits_answer answer;
    struct model_ref tensor;
    enum edit_side side;
    char *new_name; /* of the head, with a side; the caller frees it or gives it to edits_add() */
    uint32_t replica;
};

/*
 * The one tensor that the runtime name ("lm_head.weight") stands for and that `fits` admits.
 * ERR_MISMATCH: several tensors are as near; a layer that layer_replication does not make.
 */
int edits_find(struct edits_place *out, const struct edits_context *context, const char *name,
               bool (*fits)(const void *wanted, const struct st_header *header,
                            const struct st_tensor *tensor),
               const void *wanted, struct error *err);

/* ERR_MISMATCH: the base has no tensor for the runtime name; names the nearest ones. */
int edits_refuse_unknown(const struct edits_context *context, const char *name, struct error *err);

/* ERR_FORMAT unless the base's tensor is one that is computed with. */
int edits_check_dtype(const struct model *model, struct model_ref ref, struct error *err);

/* The name of a tensor of the base, quoted. */
const char *edits_quote_ref(char buf[QUOTED_BYTES], const struct model *model,
                            struct model_ref ref);

/* "[2, 3]"; the caller releases it. */
struct text edits_shape_text(const struct st_header *header, const struct st_tensor *tensor);

#endif

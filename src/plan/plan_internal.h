/*
 * plan_internal.h - the steps of plan_make(), one file each
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PLAN_PLAN_INTERNAL_H
#define PLAN_PLAN_INTERNAL_H

#include "plan/plan.h"

/* A factor pair and the tensor it changes, found by plan_match(). */
struct plan_match {
    uint64_t tensor; /* number in the model: shards in order, tensors in order; tensor_count: the
                        head that the base does not hold */
    uint32_t adapter;
    uint32_t pair;
};

/* What plan_match() finds out. */
struct plan_matches {
    struct plan_match *list; /* sorted by tensor, then adapter */
    size_t count;
    bool own_head;                /* the output head changes alone: the config must say untied */
    bool head;                    /* some match is for a head that the base does not hold */
    struct model_ref head_source; /* the tensor that is tied to it */
    char *head_name;              /* "lm_head.weight" */
    size_t head_name_bytes;
};

/* The number of a tensor in the whole model. */
uint64_t plan_model_number(const struct model *model, struct model_ref ref);

int plan_match_all(struct plan_matches *out, const struct model *model,
                   const struct plan_adapter *adapters, size_t adapter_count,
                   const struct plan_options *options, int config_tied, const struct log *log,
                   struct error *err);
void plan_matches_release(struct plan_matches *matches);

/* Fill tensors (without offsets in the output), targets and deltas. */
int plan_list_tensors(struct plan *plan, const struct model *model,
                      const struct plan_adapter *adapters, size_t adapter_count,
                      const struct plan_matches *matches, const struct plan_options *options,
                      struct error *err);

/* Cut into files, emit headers, set offsets. */
int plan_lay_out(struct plan *plan, const struct model *model, uint64_t max_shard_bytes,
                 struct error *err);

/* Count blocks, reads and in-place blocks. */
int plan_count_blocks(struct plan *plan, struct error *err);

#endif

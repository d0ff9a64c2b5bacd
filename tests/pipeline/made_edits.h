/*
 * made_edits.h - a random base, adapters that are mere heaps of numbers, random edits
 * of the base that take their factors from them, and what the merge must give
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_MADE_EDITS_H
#define TESTS_MADE_EDITS_H

#include "adapter/edit.h"
#include "format/model.h"
#include "pipeline/made_model.h"
#include "plan/plan.h"
#include "scheme/scheme.h"

#define MADE_ADAPTERS_MAX 3
#define MADE_HEAPS 3u /* tensors 0 to 2 of an adapter: BF16, F16, F32 */
#define MADE_HEAP_ELEMENTS UINT64_C(700000)

struct made_edits {
    struct made_model model;
    struct model base;         /* the same, opened */
    struct scheme_base scheme; /* quantised: some of its tensors lie in a file of codes instead */
    bool bnb4; /* of its schemes some are bitsandbytes' own: only these are encoded again */
    struct made_model heaps[MADE_ADAPTERS_MAX];
    struct model opened[MADE_ADAPTERS_MAX]; /* the same, opened */
    struct adapter adapters[MADE_ADAPTERS_MAX];
    struct plan_adapter plan_adapters[MADE_ADAPTERS_MAX];
    struct adapter_edits edits[MADE_ADAPTERS_MAX];
    unsigned adapter_count;
    uint64_t rng;
};

/* Below model.directory, a fresh directory. */
void made_edits_create(struct made_edits *made, uint64_t seed);
/* Part of that, for every other seed. */
void made_quantise(struct made_edits *made);

void made_edits_release(struct made_edits *made);

/* Fail the test unless `output` holds what the definition gives; dtypes as in the options. */
void made_edits_check(const struct made_edits *made, const struct plan *plan, const char *output,
                      const struct plan_options *options);

#endif

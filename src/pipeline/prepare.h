/*
 * prepare.h - what is made before the first block: repacked factors, norms of DoRA, scales
 *
 * All run on the calling thread, with the scratch of a worker that has nothing to
 * do yet.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PIPELINE_PREPARE_H
#define PIPELINE_PREPARE_H

#include "pipeline/internal.h"

#include <stdatomic.h>

/* Of one output; all that prepares it has the same one. */
struct prepare_watch {
    const struct pipeline_options *options;
    const atomic_int *cancelled;
    size_t output;
    pthread_t thread;          /* that progress is told on: the calling one */
    uint64_t bytes;            /* of what is read or repacked, all of it */
    atomic_uint_fast64_t done; /* of them */
    double shown;              /* when progress was told; of that thread */
};

void prepare_watch(struct prepare_watch *watch, const struct plan *plan, size_t output,
                   const struct pipeline_options *options, const atomic_int *cancelled);

/* `bytes` more are about to be done; ERR_CANCELLED: no.  Any thread. */
int prepare_step(struct prepare_watch *watch, uint64_t bytes, struct error *err);

/* Write plan.repacks to job.repacked, an unnamed file in the directory. */
int prepare_factors(struct job *job, const struct scratch *scratch, int directory_fd,
                    struct prepare_watch *watch, struct error *err);

/*
 * Part of that: `count` left or right factors of one tensor whose rows follow each other within one
 * stride, ascending, and take `row_floats` elements together, more than PLAN_B_FLOATS.
 */
int repack_wide(struct job *job, const struct scratch *scratch, const struct plan_repack *repacks,
                size_t count, uint64_t row_floats, struct prepare_watch *watch, struct error *err);

/* The scales of tensors that are written back in the base's own scheme, into job.repacked. */
int prepare_scales(struct job *job, struct crew *crew, const struct scratch *scratch,
                   struct prepare_watch *watch, struct error *err);

/* Fill job.norms: the factors of DoRA that no worker can make from its block alone. */
int prepare_norms(struct job *job, const struct scratch *scratch, struct prepare_watch *watch,
                  struct error *err);

#endif

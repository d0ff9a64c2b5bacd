/*
 * layer.h - the factors of a pair as a layer, and how their product lies in a weight
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_LAYER_H
#define ADAPTER_LAYER_H

#include "adapter/edits_internal.h"

/* Bits, since a square weight admits both. */
enum { LAYER_OUT_IN = 1, LAYER_IN_OUT = 2 };

/* The factors of a pair, as a layer of `out` and `in` features. */
struct layer {
    const struct adapter *adapter;
    const struct adapter_pair *pair;
    uint64_t out;
    uint64_t in;             /* of a convolution: times its kernel */
    const uint64_t *a_shape; /* [rank, in, kernel...] */
    size_t a_shape_count;
    uint32_t a_blocks; /* BD-LoRA; 1: none */
    uint32_t b_blocks;
    bool may_transpose; /* a Conv1D by its model type, or by fan_in_fan_out */
    bool resizable;     /* an embedding or head: the adapter's copy may have another row count */
};

/* ERR_FORMAT: the shapes of the factors are not those of the rank and blocks. */
int layer_init(struct layer *out, const struct edits_context *context,
               const struct adapter_pair *pair, struct error *err);

/* The ways in which the product may lie in a tensor of this shape; 0: it does not fit. */
unsigned layer_ways(const struct layer *layer, const uint64_t *shape, size_t shape_count);

/* Is the module of a square weight a Conv1D of transformers, which stores [in, out]? */
bool layer_is_conv1d(const struct layer *layer, const struct edits_context *context);

struct factor_view layer_view_of_a(const struct layer *layer); /* its i counts inputs */
struct factor_view layer_view_of_b(const struct layer *layer); /* its i counts outputs */

#endif

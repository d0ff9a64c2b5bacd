/*
 * experts.h - mixtures of experts: how a base keeps them, and what an adapter says of them
 *
 * A base keeps one parameter of all experts of a layer either fused in a tensor
 * [experts, rows, cols] or one by one in tensors [out, in] of their own; an adapter
 * has factors for one expert's layer or for the fused parameter.  All four
 * combinations are folded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_EXPERTS_H
#define ADAPTER_EXPERTS_H

#include "adapter/edits_internal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum expert_part { EXPERT_GATE, EXPERT_UP, EXPERT_DOWN, EXPERT_GATE_UP, EXPERT_OTHER };

/* A pair on its way to edits. */
struct expert_pair {
    const struct edits_context *context;
    const struct adapter_pair *pair;
    uint32_t index; /* of the pair */
    uint32_t replica;
    char *module;  /* as pair->module, with the base's number of the layer */
    uint64_t rows; /* of A: ranks of all experts */
    uint64_t in;   /* columns of A */
    uint64_t out;  /* rows of B */
};

/* The path of one expert's layer: "model.layers.0.mlp.experts.3.gate_proj". */
struct expert_name {
    size_t experts_bytes; /* the path up to ".experts" included */
    const char *number;   /* in the path */
    size_t number_bytes;
    uint64_t expert;
    enum expert_part part; /* EXPERT_GATE_UP: "experts.gate_up_projs.3" */
};

bool expert_name_read(struct expert_name *out, const char *module);

/* How one way of naming calls a part ("gate_proj", "w1"); NULL: there are no more ways. */
const char *expert_spelling(unsigned spelling, enum expert_part part);

/* A parameter of a module in the base. */
struct expert_place {
    enum { EXPERTS_NOWHERE, EXPERTS_FUSED, EXPERTS_SINGLE, EXPERTS_MATRIX } kind;
    bool fits;               /* by the shape of one expert's matrix */
    struct model_ref tensor; /* if single: the first one's, for messages */
    uint64_t count;          /* experts; 1 for a matrix */
    uint64_t rows;           /* of one expert's matrix, single: of gate over up */
    uint64_t cols;
    enum expert_part part;
    char *experts; /* single: "model.layers.0.block_sparse_moe.experts", on disk */
    unsigned spelling;
};

void expert_place_release(struct expert_place *place);

/*
 * Where the base has `parameter` ("gate_up_proj", "weight") of the module at `module`, of `bytes`.
 * A matrix of one expert fits if it is [out, in] or, but for EXPERTS_MATRIX, [in, out].  On
 * success, also with EXPERTS_NOWHERE, the caller releases *place.  ERR_MISMATCH: several tensors.
 */
int expert_place_find(struct expert_place *place, const struct model *model, const char *module,
                      size_t bytes, const char *parameter, uint64_t out, uint64_t in,
                      struct error *err);

/* The parts that a place of single experts has: gate and up, or one.  Returns their number. */
size_t expert_place_parts(const struct expert_place *place, enum expert_part parts[2]);

/* The tensor of one part of one expert of a place of single experts, if there is one. */
int expert_place_single(struct model_ref *out, bool *found, const struct expert_place *place,
                        const struct model *model, uint64_t expert, enum expert_part part,
                        struct error *err);

/* Does the base hold these experts fused under the names of the path itself?  Fails to "no". */
bool expert_is_fused(const struct expert_pair *pair, const struct expert_name *name);

/* The same tensor's name in another spelling (w1 for gate_proj); false: no such tensor. */
int expert_find_respelled(struct model_ref *out, bool *found, const struct expert_pair *pair,
                          const struct expert_name *name, struct error *err);

/* Which parameter a pair of adapter.config.target_parameters is for, and how it is scaled. */
struct expert_parameter {
    struct expert_place place;
    uint32_t rank; /* of one expert */
    double scale;
};

/*
 * ERR_MISMATCH: the base has none that is targeted, or its shape or number of experts is another;
 * several may be meant.  *found is false if the base has none.
 */
int expert_parameter_find(struct expert_parameter *out, bool *found, const struct expert_pair *pair,
                          struct error *err);

/*
 * Is the delta of an expert the transpose of B A?  ERR_MISMATCH if the matrices are square and
 * nothing tells.
 */
int expert_is_transposed(bool *transposed, const struct expert_pair *pair,
                         const struct expert_place *place, struct error *err);

/* Are the columns of B expert-major (e * rank + k), and not rank-major (k * count + e)? */
int expert_b_is_grouped(bool *grouped, const struct edits_context *context, uint64_t count,
                        uint32_t rank, struct error *err);

/* Where a name has its layer number, the base's stands there.  The caller releases *out. */
int expert_pair_init(struct expert_pair *out, const struct edits_context *context, uint32_t index,
                     struct error *err);
void expert_pair_release(struct expert_pair *pair);

/* The delta of one expert's matrix: left [rows][rank], right [rank][cols]. */
struct expert_delta {
    struct factor_view left;
    struct factor_view right;
    uint32_t rank;
    double scale;
};

/*
 * B A of one expert, of `rank` rows of A from row first_a on, and of as many columns of B, from
 * first_b on, rank_stride apart.
 */
struct expert_delta expert_delta_make(const struct expert_pair *pair, uint32_t rank, double scale,
                                      uint64_t first_a, uint64_t first_b, uint64_t rank_stride);

struct expert_delta expert_delta_transpose(const struct expert_delta *delta);

/* Rows [first, first + count) of the delta alone. */
struct expert_delta expert_delta_rows(const struct expert_delta *delta, uint64_t first,
                                      uint64_t count);

/* ERR_FORMAT: what PEFT does not make for experts, and what a slice of a tensor has no place for.
 */
int expert_refuse_extras(const struct expert_pair *pair, struct error *err);

/*
 * The edits of a pair for one expert's layer whose tensor the base does not have under the layer's
 * own name.  *handled is false if it has no other place either.
 */
int expert_module_edits(struct adapter_edits *edits, bool *handled, const struct expert_pair *pair,
                        const struct expert_name *name, struct error *err);

/* Add the delta to rows of a tensor.  ERR_FORMAT: a dtype that is not computed with. */
int expert_add_edit(struct adapter_edits *edits, const struct expert_pair *pair,
                    struct model_ref tensor, uint64_t row_first, uint64_t row_count,
                    const struct expert_delta *delta, struct error *err);

/* error_set(ERR_MISMATCH): the tensor of the base, its shape, and what the factors make. */
int expert_refuse_shape(const struct expert_pair *pair, struct model_ref tensor, struct error *err);

#endif

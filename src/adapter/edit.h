/*
 * edit.h - what an adapter does to the tensors of a base
 *
 * adapter_make_edits() joins the modules of one adapter with the tensors of one
 * base.  Every kind of layer ends here as one of three edits of a matrix, so that
 * planning and computing know nothing of PEFT.
 *
 * The matrix of a tensor is its row-major memory as [rows][cols]: a linear layer
 * [out][in], a convolution [out][in * kernel], a vector [1][n], fused experts
 * [E, d1, d2] as [E * d1][d2].
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_EDIT_H
#define ADAPTER_EDIT_H

#include "adapter/adapter.h"
#include "base/error.h"
#include "base/log.h"
#include "format/config_text.h"
#include "format/model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EDIT_ALL_ONES (UINT32_MAX - 1) /* as factor_view.tensor: no tensor, each element is 1 */

/*
 * How elements (i, k) of a factor lie in a tensor of the adapter: i counts rows of the matrix for
 * a left factor and columns for a right one, k counts ranks.
 *
 *     element(i, k) = tensor[offset + j * index_stride + k * rank_stride]
 *     with j = (i - first) / step
 *
 * and 0 where i < first, (i - first) % step != 0 or j >= count.
 *
 * Block-diagonal factors (blocks > 1; first 0 and step 1) are stored block after block.  With
 * J = count / blocks, K = rank / blocks and b = k / K, an element is 0 where j / J != b, else
 *
 *     element(i, k) = tensor[offset + b * J * K + (j % J) * index_stride + (k % K) * rank_stride]
 */
struct factor_view {
    uint32_t tensor; /* index in adapter.header.tensors, or EDIT_ALL_ONES */
    uint32_t blocks; /* 1: not block-diagonal */
    uint64_t offset; /* in elements, likewise the strides */
    uint64_t index_stride;
    uint64_t rank_stride;
    uint64_t first;
    uint64_t step;
    uint64_t count;
};

/* Is each (i, k), i < count, an element of the tensor? */
static inline bool factor_view_is_plain(const struct factor_view *view, uint64_t count)
{
    return view->tensor != EDIT_ALL_ONES && view->blocks == 1 && view->first == 0 &&
           view->step == 1 && view->count == count;
}

enum edit_kind {
    EDIT_DELTA,   /* W += scale * L R on the rows [row_first, row_first + row_count) */
    EDIT_REPLACE, /* the tensor is the adapter's `source`, whatever its shape */
    EDIT_ROWS     /* row row_list[i] is row row_source[i] of the adapter's `source` [n, cols]; where
                     a tensor has a delta as well, the rows come first and the delta is added */
};

/* Which of the two uses of a tensor that a base ties (input embedding, output head) is meant. */
enum edit_side { EDIT_UNTIED, EDIT_EMBEDDING, EDIT_HEAD };

/* A magnitude per row, or per column, that replaces the norm of W + delta (DoRA). */
enum edit_norm { EDIT_NO_NORM, EDIT_NORM_OF_ROWS, EDIT_NORM_OF_COLS };

struct adapter_edit {
    enum edit_kind kind;
    enum edit_side side;
    struct model_ref tensor; /* EDIT_UNTIED: unless new_name; of a tied head: the embedding */
    char *new_name;          /* a tensor that the base lacks, or NULL: for EDIT_REPLACE; and with a
                                side, the name that the head gets if it has to leave `tensor` */
    uint32_t replica; /* with layer_replication: which copy of the tensor, in the order of the new
                         layers; otherwise 0 */
    uint32_t pair;    /* index of adapter.pairs, for messages, or ADAPTER_NO_TENSOR */
    uint32_t source;  /* EDIT_REPLACE, EDIT_ROWS: adapter tensor.  EDIT_DELTA: the adapter's own
                         copy of W, which counts instead of the base's, or ADAPTER_NO_TENSOR */

    /* EDIT_DELTA and EDIT_ROWS: the matrix of the whole tensor. */
    uint64_t rows;
    uint64_t cols;

    /* EDIT_DELTA */
    uint64_t row_first;
    uint64_t row_count;
    struct factor_view left;  /* [row_count][rank]; its i is the row less row_first */
    struct factor_view right; /* [rank][cols] */
    uint32_t rank;
    double scale; /* alpha / r or alpha / sqrt(r), before the weight */
    enum edit_norm norm;
    uint32_t magnitude; /* adapter tensor with row_count or cols elements, if norm */

    /* EDIT_ROWS, ascending, none twice */
    uint64_t *row_list;
    uint64_t *row_source; /* which row of `source` each is */
    size_t row_list_count;
};

struct adapter_edits {
    struct adapter_edit *list; /* no order */
    size_t count;
    size_t capacity;
};

/* A layer of the new model, with layer_replication: a copy of a layer of the base. */
struct adapter_replicas {
    uint64_t *base_layer; /* of each new layer; NULL without replication */
    uint64_t count;
};

/* How the columns of a B factor of fused experts are ordered, where nothing tells. */
enum edit_b_layout { EDIT_B_AUTO, EDIT_B_RANK_MAJOR, EDIT_B_EXPERT_MAJOR };

struct edit_options {
    const struct config_facts *facts; /* of the base */
    enum edit_b_layout b_layout;
    bool allow_unused; /* what has no place in the base is listed in adapter.unused */
};

/*
 * All edits of one adapter.  ERR_MISMATCH: a module that fits no tensor (with the nearest names),
 * several (with their names) or has another shape; two edits of one thing.  ERR_FORMAT: a tensor of
 * the base whose dtype is not computed with, or a kind that the saved files do not suffice for.
 * Sentences do not name the adapter.  On success the caller releases *out; it refers to tensors of
 * adapter and model by index.
 */
int adapter_make_edits(struct adapter_edits *out, struct adapter *adapter,
                       const struct model *model, const struct edit_options *options,
                       const struct log *log, struct error *err);
void adapter_edits_release(struct adapter_edits *edits);

/*
 * Layers of the new model (adapter.config.layer_replication), or count 0.  ERR_MISMATCH: a layer
 * that the base does not have.
 */
int adapter_find_replicas(struct adapter_replicas *out, const struct adapter *adapter,
                          const struct model *model, struct error *err);
void adapter_replicas_release(struct adapter_replicas *replicas);

/*
 * Is a tensor of this name the input embedding or the output head of a model, and not inside a
 * numbered layer?  EDIT_UNTIED: neither.  A base that says it is tied but holds both is no longer
 * tied once one of them changes.
 */
enum edit_side adapter_tensor_use(const char *name, size_t bytes);

/*
 * Modules of the base that the configuration targets but that no edit changes: 2-D tensors
 * `<name>.weight`.  Returns their number; up to `count` names (owned by the model, with ".weight")
 * go to `names`.
 */
int adapter_count_missing(const struct adapter *adapter, const struct adapter_edits *edits,
                          const struct model *model, const char **names, size_t count,
                          size_t *missing, struct error *err);

/* Where a name has its layer number: "model.layers.12.mlp" gives 13 and 15; false if nowhere. */
bool adapter_name_layer(const char *name, size_t bytes, size_t *begin, size_t *end);

#endif

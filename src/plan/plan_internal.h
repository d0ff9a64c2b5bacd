/*
 * plan_internal.h - the steps of plan_make(), one file each
 *
 * match.c: the edits of all adapters, sorted; tied.c: which of them mean which side
 * of a tied pair; tensors.c: output tensors; apply.c: what the edits make of one; targets.c: their
 * targets and deltas; encode.c, same.c: outputs in 4 bits, or in the base's own scheme; turn.c:
 * those that lie transposed to the base; factors.c: how factors lie; layout.c: files; torch.c: what
 * is different in torch's; blocks.c: blocks; alike.c: which of several outputs' are alike; norms.c:
 * DoRA; memory.c: the budget.  plan_adapter.c has the steps of plan_make_adapter().
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PLAN_PLAN_INTERNAL_H
#define PLAN_PLAN_INTERNAL_H

#include "plan/plan.h"

#define PLAN_NEW_TENSOR UINT64_MAX

/* An edit and the output tensor it is for. */
struct plan_match {
    uint64_t
        tensor; /* number in the model: shards in order, tensors in order; or PLAN_NEW_TENSOR */
    uint32_t replica;
    bool head; /* for the head of a tied pair, which becomes a tensor of its own */
    uint32_t adapter;
    const struct adapter_edit *edit;
};

struct plan_matches {
    struct adapter_edits *edits; /* of each adapter */
    size_t adapter_count;
    struct plan_match *list; /* by head, tensor, replica, name of a new one, first row, adapter */
    size_t count;
    uint64_t bytes;        /* of all this */
    bool own_head;         /* an output head is changed: the config must say untied */
    bool head;             /* the head of a tied base becomes a tensor of its own */
    uint64_t tied;         /* number of the tied tensor, if head */
    const char *head_name; /* "lm_head.weight", in an edit */
};

/* The number of a tensor in the whole model. */
uint64_t plan_model_number(const struct model *model, struct model_ref ref);

/* ERR_MISMATCH where edits exclude each other; ERR_USAGE for weights that mean nothing. */
int plan_match_all(struct plan_matches *out, const struct model *model,
                   const struct plan_adapter *adapters, size_t adapter_count,
                   const struct plan_options *options, const struct config_facts *facts,
                   const struct log *log, struct error *err);
void plan_matches_release(struct plan_matches *matches);

/* Decide between one shared tensor and two; drops or moves the matches of one side. */
int plan_resolve_tied(struct plan_matches *matches, const struct plan_adapter *adapters,
                      enum plan_tied tied, const struct log *log, struct error *err);

/* What all steps of making tensors need. */
struct plan_maker {
    struct plan *plan;
    const struct model *model;
    const struct plan_adapter *adapters;
    const struct plan_matches *matches;
    const struct plan_options *options;
    const struct config_facts *facts;
    bool bnb4; /* the base is of bitsandbytes' 4 bits: what it quantised is quantised again */
};

/*
 * Apply the matches of the newest tensor of the plan, which is filled in from the base, or is
 * PLAN_PATCH and empty if the base does not have it.  Reorders `list`.
 */
int plan_apply(const struct plan_maker *maker, struct plan_match *list, size_t count,
               struct error *err);
int plan_too_large(const struct plan_tensor *tensor, struct error *err);

/* Fill tensors (without offsets in the output), targets, deltas, patches and repacks. */
int plan_list_tensors(struct plan *plan, const struct model *model,
                      const struct plan_adapter *adapters, const struct plan_matches *matches,
                      const struct plan_options *options, const struct config_facts *facts,
                      struct error *err);

/* A base of bitsandbytes says itself what is quantised. */
bool plan_base_is_bnb4(const struct plan_options *options);

/* Is this finished tensor quantised on its way out? */
bool plan_is_encoded(const struct plan_maker *maker, const struct plan_tensor *tensor);

/* Fill plan.skipped, once there are all tensors.  ERR_USAGE for --skip of what is not there. */
int plan_list_skipped(const struct plan_maker *maker, struct error *err);

/* Let a finished tensor that is the weight of a linear layer of the base go through NF4. */
void plan_set_roundtrip(const struct plan *plan, struct plan_tensor *tensor,
                        const struct plan_options *options);

/* Make tensors[0], number `index` of the plan, codes, and list its companions behind it. */
int plan_encode(struct plan *plan, struct plan_tensor tensors[PLAN_COMPANIONS + 1], size_t *count,
                uint64_t index, const struct plan_options *options, struct error *err);

/*
 * same.c: with options->stored.  The newest tensor, number `number` of the view, as it is stored: a
 * copy, or codes made anew.  ERR_FORMAT: its scheme is not written back.
 */
int plan_same(const struct plan_maker *maker, struct model_ref ref, uint64_t number,
              struct error *err);
/* Why a scheme is not written back; NULL: it is. */
const char *plan_same_refusal(const struct scheme_tensor *quant);
/* Fill in a tensor as it is stored, to be copied. */
void plan_stored(struct plan_tensor *out, const struct model *stored, struct model_ref ref);
/* When all are listed: the scales of codes that are made anew. */
int plan_same_scales(struct plan *plan, struct error *err);

/*
 * turn.c: does the output hold the matrices of this tensor, which is filled in from the base and
 * has these matches, transposed to the view's?  Then plan_turn() makes tensor and matches so.
 */
bool plan_is_turned(const struct plan_maker *maker, const struct plan_tensor *tensor,
                    const struct plan_match *list, size_t count);
int plan_turn(struct plan *plan, struct plan_tensor *tensor, struct plan_match *list, size_t count,
              struct error *err);

/* Where factors of an edit are, or will be once they are repacked. */
int plan_add_factors(struct plan *plan, const struct plan_adapter *adapter,
                     const struct adapter_edit *edit, uint32_t input, struct plan_factor *left,
                     struct plan_factor *right, struct error *err);

/* An adapter tensor as a factor. */
struct plan_factor plan_tensor_factor(const struct adapter *adapter, uint32_t tensor,
                                      uint32_t input);

/*
 * Cut the rows of a tensor into targets, each with the deltas that change it: `matches` are its
 * EDIT_DELTA ones, by first row.
 */
int plan_add_targets(struct plan *plan, uint64_t tensor, const struct plan_adapter *adapters,
                     const struct plan_match *matches, size_t count, struct error *err);

/* Patches of a tensor: rows of an EDIT_ROWS edit, or all `elements` of it from one source. */
int plan_add_rows(struct plan *plan, struct plan_tensor *tensor, const struct adapter *adapter,
                  const struct adapter_edit *edit, uint32_t input, struct error *err);
int plan_add_whole(struct plan *plan, struct plan_tensor *tensor, uint64_t elements,
                   struct plan_factor source, struct error *err);

/* A copy of `bytes` bytes, and a zero byte, that belongs to the plan; NULL without memory. */
void *plan_keep(struct plan *plan, const void *data, size_t bytes);

/* What a tensor of a file becomes. */
enum dtype plan_output_dtype(const struct st_header *header, const struct st_tensor *tensor,
                             const struct plan_options *options);

/* A tensor of a file, copied as it is.  Which file that is, the caller says. */
struct plan_tensor plan_copy_of(const struct st_header *header, const struct st_tensor *tensor);

/* Convert a copy of `tensor`, if that is another dtype. */
int plan_convert(struct plan_tensor *out, const struct st_tensor *tensor, enum dtype dtype,
                 struct error *err);

/* Sum up what is done with the tensors. */
void plan_count_actions(struct plan *plan);

/*
 * Cut into files, name them, emit headers, set offsets.  Without a model there is no metadata to
 * keep.  ERR_FORMAT: a dtype that torch lacks.
 */
int plan_lay_out(struct plan *plan, const struct model *model, const struct plan_options *options,
                 struct error *err);

/* Are its bytes those of its input, as many, changed or not? */
bool plan_keeps_width(const struct plan_tensor *tensor);

/* torch.c: a head of a file, with its pickle, behind the other headers. */
int plan_emit_torch_head(struct plan *plan, struct plan_file *file, struct text *headers,
                         struct text *pickle, struct error *err);
/* Where a tensor of a torch file goes, behind the one before it; and the bytes of the tail. */
void plan_place_in_torch(struct plan *plan, const struct plan_file *file, uint64_t tensor);
uint64_t plan_torch_tail_bytes(const struct plan *plan, const struct plan_file *file);

/* A tied head of which the base has no tensor is a name for the embedding's, as torch saves it. */
int plan_find_alias(struct plan *plan, const struct model *model, const struct config_facts *facts,
                    struct error *err);

/* Count blocks, reads and in-place blocks. */
int plan_count_blocks(struct plan *plan, struct error *err);

/* Which norms are made before the work, as factors are resident now; sets cuts and norm_count. */
int plan_set_norms(struct plan *plan, struct error *err);

#endif

/*
 * plan.h - what will be done: every output byte, before the first weight is read
 *
 * A plan is plain data made from headers and configurations alone.  It says how
 * each output tensor is made (copied, converted, folded), where its bytes come
 * from and go to, and what memory the work takes.
 *
 * Layout rules: tensors keep the order of the base; a base shard whose output
 * fits max_shard_bytes stays one file, a larger one is cut between tensors; the
 * header of an output is padded so that its data start lies at the same offset,
 * modulo PAGE_BYTES, as its first tensor in the base.  Then a block of output is
 * a window of the base that is folded in place.  Between the tensors of a torch
 * file lie headers; there each large tensor is placed so, if it lies at a
 * multiple of 64 in the base.
 *
 * An output file is worked on in blocks: PLAN_BLOCK_BYTES each, at multiples of
 * it, the last one shorter.  plan_block() derives a block from the plan alone.
 *
 * Threads: a finished plan is immutable.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PLAN_PLAN_H
#define PLAN_PLAN_H

#include "adapter/adapter.h"
#include "adapter/edit.h"
#include "base/bytes.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "compute/fold.h"
#include "format/model.h"
#include "scheme/scheme.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_BLOCK_BYTES (4 * MIB)
#define PLAN_READS_MAX 64u
#define WINDOW_BYTES                                                                               \
    (4 * MIB) /* of the base, at a multiple of it in its shard: what several outputs               \
                 read at once */
#define PLAN_NO_TARGET UINT32_MAX
#define PLAN_REPACKED UINT32_MAX /* as the input of a factor: the file of repacked factors */

/*
 * What one worker has to itself.  A factor A that few blocks need is packed into PLAN_A_FLOATS;
 * one that is larger and not resident goes through it in panels of FOLD_PANEL ranks and
 * PLAN_TILE_COLS columns, with two tiles (W and the sum) of PLAN_TILE_FLOATS.
 */
#define PLAN_A_FLOATS (UINT64_C(256) * 1024) /* FOLD_PANEL * PLAN_TILE_COLS */
#define PLAN_B_FLOATS (UINT64_C(64) * 1024)  /* rows of B, at least one of the largest rank */
#define PLAN_RAW_BYTES (256 * KIB)           /* factors as they are in the file */
#define PLAN_TILE_COLS UINT64_C(4096)
#define PLAN_TILE_FLOATS (UINT64_C(256) * 1024)
/* Where the base is quantised: a piece of a tensor as fp32, and the companions of a run. */
#define PLAN_DECODED_FLOATS (UINT64_C(64) * 1024)
#define PLAN_COMPANION_BYTES (256 * KIB)        /* of each kind, for the pieces of a run */
#define PLAN_WHOLE_FLOATS (UINT64_C(64) * 1024) /* nested scales of one tensor, at most */
#define PLAN_GROUPS_MAX (UINT64_C(64) * 1024)   /* inputs with a group of their own */
/* Where the output is quantised: a piece of a tensor that is encoded at once. */
#define PLAN_ENCODED_ELEMENTS (UINT64_C(64) * 1024)
#define PLAN_SCALES_UNIT 16u /* floats: scratch is cut at whole cache lines */
#define PLAN_DELTAS_MAX 64u  /* of one target that are folded at once */
#define PLAN_CUT_BYTES 64u   /* for an element that a block boundary cuts */
/* Where a device computes, for each worker beside the counterparts of its scratch and a slot. */
#define PLAN_LANE_HOST_BYTES (UINT64_C(1) * MIB)
#define PLAN_LANE_DEVICE_BYTES (UINT64_C(8) * KIB)

enum plan_tied { PLAN_TIED_EXACT, PLAN_TIED_SHARED };

struct plan_options {
    bool convert; /* dtype below is asked for; false: keep */
    enum dtype dtype;
    enum plan_tied tied;
    uint64_t max_shard_bytes;
    bool strict;
    bool allow_unused;
    enum edit_b_layout b_layout;
    const struct scheme_base *scheme; /* whose view the model is; NULL: nothing is quantised */
    const struct model *stored;       /* the base as it is stored: write it back in its own scheme;
                                         NULL: in 16 bits, or as `encode` says */
    bool roundtrip;                   /* take linear layers of a 16-bit base through NF4 */
    bool encode;                      /* to 4 bits, as bitsandbytes does it */
    enum quant_codes codes;           /* then QUANT_NF4 or QUANT_FP4_BNB */
    bool nested;
    const char *const *skip; /* modules that stay in 16 bits, with all in them: whole components of
                                names, in a row */
    size_t skip_count;
    bool torch;          /* files of torch.save() instead of safetensors */
    const char *variant; /* part of the names of files, or NULL; plan_check_variant() */
};

/* One adapter and the weight its deltas are multiplied with. */
struct plan_adapter {
    struct adapter *adapter; /* its list of unused tensors grows with allow_unused */
    double weight;
};

/* A file that bytes come from: the shards of the base first, then the adapters' weights. */
struct plan_input {
    const char *path; /* belongs to the model or adapter */
    struct file_identity identity;
};

/* PLAN_PATCH: all of it are patches; bytes of the base may be read in its place, and do not count.
 */
enum plan_action {
    PLAN_COPY,
    PLAN_CONVERT,
    PLAN_FOLD,
    PLAN_PATCH,
    PLAN_ENCODE,   /* codes of a quantised output: what would be folded or converted, encoded */
    PLAN_COMPANION /* a companion of such codes; their scales where they are written back */
};

/* The companions of bitsandbytes' 4-bit codes. */
enum plan_companion {
    PLAN_ABSMAX,
    PLAN_QUANT_MAP,
    PLAN_NESTED_ABSMAX,
    PLAN_NESTED_MAP,
    PLAN_QUANT_STATE,
    PLAN_COMPANIONS
};

/*
 * How a tensor is quantised on its way out.  As bitsandbytes does it: the merged weight is rounded
 * to `middle` and encoded in blocks of PLAN_ENCODING_BLOCK elements.  The absmax of all blocks go,
 * as fp32, to the file of repacked factors first, because what is written of them depends on all of
 * them.
 */
struct plan_encoding {
    const struct scheme_tensor *same; /* instead, written back in this scheme of the base: `middle`
                                         is F32, and the scales, as they will be stored, are made
                                         before the work in place of the absmax */
    uint64_t tensor; /* index of plan.tensors: the codes; its companions follow it */
    uint64_t elements;
    uint64_t rows; /* of the logical tensor */
    uint64_t cols;
    uint64_t absmax_count;
    uint64_t absmax_offset; /* in the file of repacked factors */
    enum quant_codes codes; /* unless same: QUANT_NF4 or QUANT_FP4_BNB */
    enum dtype middle;      /* BF16, F16 or F32 */
    bool nested;
    uint32_t number; /* in the order of the output */
};

#define PLAN_ENCODING_BLOCK 64u
#define PLAN_QUANT_STATE_BYTES 256u /* of JSON, filled up with spaces */

/* One output tensor, in the order of the output. */
struct plan_tensor {
    const char *name; /* ends with a zero; belongs to the model or the plan */
    const uint64_t *shape;
    const struct scheme_tensor *quant; /* how the base stores it; NULL: as dtype_in.  Then input and
                                          in_offset are of the codes, and dtype_in is what they
                                          decode to */
    const struct plan_encoding *encoding; /* PLAN_ENCODE, PLAN_COMPANION */
    uint32_t name_bytes;
    uint32_t input;      /* index of plan.inputs */
    uint32_t shard;      /* of the base, whose place in the output it takes */
    uint64_t in_offset;  /* in that file */
    uint64_t out_offset; /* in its output file */
    uint64_t in_bytes;
    uint64_t out_bytes;
    uint32_t target_first; /* index of plan.targets: those of its rows, ascending, disjoint */
    uint32_t target_count;
    uint32_t patch_first; /* index of plan.patches: ascending, disjoint */
    uint32_t patch_count;
    uint16_t shape_count;
    uint8_t action;    /* enum plan_action */
    uint8_t companion; /* enum plan_companion */
    bool roundtrip;    /* its elements go through NF4 before anything is added */
    bool whole;        /* PLAN_FOLD: all of its input is one patch, of dtype_in; in_bytes is 0 where
                          that does not lie as the base's did */
    uint8_t dtype_in;  /* enum dtype */
    uint8_t dtype_out;
};

/* A factor as fp32 or as it stands in an adapter, row-major and dense. */
struct plan_factor {
    uint32_t input;  /* index of plan.inputs, or PLAN_REPACKED */
    uint64_t offset; /* in that file */
    enum dtype dtype;
};

/* delta = scale * B A: B [rows][rank], A [rank][cols]. */
struct plan_delta {
    struct plan_factor a;
    struct plan_factor b;
    uint32_t rank;
    float scale; /* fl32(weight * alpha / r) */
    enum edit_norm norm;
    struct plan_factor magnitude; /* [rows] or [cols], if norm */
    uint64_t norms; /* index of its factors in the table of norms: [cols] for a norm of columns,
                       [rows] for PLAN_NORMS_ALL */
};

/* What is known before the work of the norms of a target with DoRA. */
enum plan_norms {
    PLAN_NORMS_NONE, /* no delta has one */
    PLAN_NORMS_CUT,  /* those of rows that a block boundary cuts: plan.cuts */
    PLAN_NORMS_ALL   /* all: they are made by reading the tensor once more */
};

/* Rows of a tensor that the same deltas change. */
struct plan_target {
    uint64_t tensor;    /* index of plan.tensors */
    uint64_t row_first; /* of the tensor's matrix [..][cols] */
    uint64_t rows;
    uint64_t cols;
    uint32_t delta_first; /* index of plan.deltas */
    uint32_t delta_count;
    uint32_t resident; /* number in the order of resident targets, or PLAN_NO_TARGET */
    uint32_t rank_sum; /* over its deltas */
    enum plan_norms norms;
    uint32_t cut_first; /* index of plan.cuts, if PLAN_NORMS_CUT */
    uint32_t cut_count;
};

/* A row that a block boundary cuts, so that no block has all of it. */
struct plan_cut {
    uint64_t row;   /* of the target */
    uint64_t norms; /* index in the table of norms: one for each delta of the target */
};

/* Elements of a tensor that are taken from an adapter as they are. */
struct plan_patch {
    uint64_t first; /* element */
    uint64_t count;
    struct plan_factor source; /* of any dtype if it is that of the output */
};

/* A factor that does not lie as it is needed: put in order, as fp32, before the work. */
struct plan_repack {
    uint32_t input; /* unless view.tensor is EDIT_ALL_ONES */
    enum dtype dtype;
    uint64_t tensor_offset; /* in that file; the view's elements count from here */
    struct factor_view view;
    uint64_t count; /* of the factor's i: rows or columns */
    uint32_t rank;
    bool is_right;   /* made [rank][count], otherwise [count][rank] */
    uint64_t offset; /* in the file of repacked factors */
};

/*
 * Blocks that follow each other in an output file and hold, all of them, what lies in a shard of
 * the base, in phase with pages: where the file system can share storage they are cloned from there
 * and neither read nor computed nor written.
 */
struct plan_clone {
    uint32_t input;       /* a shard of the base */
    uint64_t block_first; /* in the file */
    uint64_t block_count;
    uint64_t offset; /* in the file */
    uint64_t in_offset;
    uint64_t bytes; /* a multiple of PAGE_BYTES, unless it ends where both files end */
};
#define PLAN_VARIANT_BYTES_MAX 64u
#define PLAN_FILE_NAME_BYTES 128u

struct plan_file {
    char name[PLAN_FILE_NAME_BYTES]; /* model-00001-of-00002.safetensors */
    uint64_t bytes;
    uint64_t data_start;
    uint64_t header_offset; /* of prefix and JSON, or of the head with the pickle, in plan.headers;
                               data_start bytes long */
    uint64_t pickle_bytes;  /* these two: of a torch file */
    uint32_t pickle_checksum;
    uint64_t tensor_first;
    uint64_t tensor_count;
    uint64_t block_first; /* number of its first block in the whole plan */
    uint64_t block_count;
    size_t clone_first; /* index of plan.clones: ascending, disjoint, never the first block */
    size_t clone_count;
};

/* Memory that the work takes, decided by plan_fit_memory(). */
struct plan_memory {
    uint64_t device_budget_bytes; /* of the device that computes; 0: the processor does */
    uint64_t device_bytes;        /* that will be taken of it */
    uint64_t device_least_bytes;  /* the smallest budget that works */
    uint64_t budget_bytes;
    uint64_t fixed_bytes;   /* program, plan, headers */
    uint64_t passing_bytes; /* beside these while the largest plan was made */
    uint64_t slot_bytes;    /* one block in flight */
    uint64_t in_bytes_max;  /* read for one block that is not folded in place */
    uint32_t slot_count;
    uint32_t window_count; /* WINDOW_BYTES each; 0 for one output */
    uint32_t thread_count;
    uint64_t scratch_bytes; /* of one worker */
    bool tiles;             /* workers have them */
    bool decoders;
    bool encoders;
    uint64_t scale_count;  /* of an encoder */
    uint64_t region_bytes; /* of one of an output's two areas for resident factors A; may be 0 */
    uint64_t needed_bytes; /* the sum of all, or what planning took if that is more */
    uint64_t least_bytes;  /* the smallest budget that works */
};

struct plan {
    struct plan_input *inputs;
    size_t input_count;
    uint32_t shard_count; /* inputs that are the base */
    struct plan_tensor *tensors;
    size_t tensor_count;
    struct plan_target *targets; /* in the order of their tensors */
    size_t target_count;
    size_t target_capacity;
    struct plan_delta *deltas;
    size_t delta_count;
    size_t delta_capacity;
    struct plan_patch *patches;
    size_t patch_count;
    size_t patch_capacity;
    struct plan_cut *cuts;
    size_t cut_count;
    size_t cut_capacity;
    uint64_t scale_count;             /* scales in the widest row of blocks that is written back */
    uint64_t norm_count;              /* fp32 factors in the table of norms */
    uint64_t sum_count;               /* columns of the widest target with norms of columns */
    struct plan_encoding **encodings; /* each allocated alone, so that they stay where they are */
    size_t encoding_count;
    size_t encoding_capacity;
    struct text skipped; /* modules that could be quantised and are not, one a line */
    struct plan_repack *repacks;
    size_t repack_count;
    size_t repack_capacity;
    uint64_t repack_bytes; /* of the file of repacked factors, beside the output while it is made */
    uint64_t bytes_read_twice; /* of tensors whose norms need all of them first */
    uint64_t bytes_rescaled;   /* of tensors whose scales are made before the work */
    void **kept;               /* names and shapes that the base does not have */
    size_t kept_count;
    size_t kept_capacity;
    uint64_t kept_bytes; /* that they take */
    struct plan_file *files;
    size_t file_count;
    char index_name[PLAN_FILE_NAME_BYTES]; /* "": there is one file */
    bool torch;                            /* the files are torch's: plan_block_frame() */
    const char *alias; /* in such files, a second name for tensor `aliased`, or NULL */
    uint64_t aliased;
    char *headers; /* what files begin with, one behind the other */
    size_t headers_bytes;
    uint64_t block_count;
    uint64_t bytes_in;         /* of tensors, from all inputs */
    uint64_t bytes_out;        /* of all output files */
    uint64_t tensor_bytes_out; /* without headers: total_size of the index */
    uint64_t parameter_count;
    size_t folded;
    size_t converted;
    size_t copied;
    size_t replaced;           /* whole tensors that are the adapter's */
    size_t roundtrips;         /* taken through NF4 */
    size_t encoded;            /* quantised on their way out */
    size_t decoded;            /* quantised tensors of the base, folded or not, and those below */
    size_t turned;             /* others that are read transposed, as if they were quantised */
    size_t patched;            /* tensors of which some rows are the adapter's */
    struct plan_clone *clones; /* in the order of their files */
    size_t clone_count;
    uint64_t blocks_cloned;
    uint64_t bytes_cloned; /* of bytes_out */
    uint64_t in_place_blocks;
    uint64_t in_bytes_max; /* of one block that is not folded in place */
    uint64_t slot_bytes;   /* that a block needs at most: its output and what it is made of */
    uint32_t *residents;   /* target index of each resident target */
    size_t resident_count;
    uint64_t vocab_from; /* rows of the embedding in the base and in the output, if they differ */
    uint64_t vocab_to;
    uint64_t labels; /* rows of a task's head that the base lacks or has with other rows; or 0 */
    struct adapter_replicas replicas; /* count 0: the layers are the base's */
    uint64_t passing_bytes; /* held while the plan was made, and given back since: edits; the caller
                               adds what it forgets itself, before plan_fit_memory() */
    bool untied;            /* an own head was written: the config must say untied */
    char *tied_head;        /* name of a head tensor that the base did not have, or NULL */
    uint64_t tied_head_bytes;
    struct plan_memory memory;
};

/*
 * Lay out a merge.  ERR_MISMATCH: a module that fits no tensor or two, a tied pair that cannot be
 * folded as asked.  ERR_FORMAT: a scheme that is not folded.  ERR_USAGE: options that contradict.
 * `facts`: what the configuration of the base says.  On success the caller releases *out; the model
 * and adapters must outlive it.
 */
int plan_make(struct plan *out, const struct model *model, const struct plan_adapter *adapters,
              size_t adapter_count, const struct plan_options *options,
              const struct config_facts *facts, const struct log *log, struct error *err);
void plan_release(struct plan *plan);

/* ERR_USAGE unless it is made of 1 to PLAN_VARIANT_BYTES_MAX letters, digits, '_' and '-'. */
int plan_check_variant(const char *variant, struct error *err);

/*
 * Lay out one adapter as PEFT saves it, in one file PLAN_ADAPTER_FILE, or PLAN_ADAPTER_TORCH_FILE;
 * of the options only `torch` and the dtype count.  ERR_FORMAT: two tensors would have one name, or
 * they lie too far apart to be read in blocks.  On success the caller releases *out; the adapter's
 * tensors may be forgotten then.
 */
#define PLAN_ADAPTER_FILE "adapter_model.safetensors"
#define PLAN_ADAPTER_TORCH_FILE "adapter_model.bin"
int plan_make_adapter(struct plan *out, const struct adapter *adapter,
                      const struct plan_options *options, struct error *err);

/*
 * Find what can be cloned: `shareable[i]` says whether shard i of the base can share its storage
 * with the output.  Part of making a plan, before plan_fit_memory(); not called: nothing is cloned.
 */
int plan_find_clones(struct plan *plan, const bool *shareable, struct error *err);

/*
 * Choose slots, workers and resident factors within `budget_bytes`; `threads` 0: up to
 * `processors`.  `extra_bytes` is held by the caller (headers, configurations).  ERR_USAGE with
 * the smallest budget that works if it cannot be done.  Part of making a plan.
 */
int plan_fit_memory(struct plan *plan, uint64_t budget_bytes, unsigned threads, unsigned processors,
                    uint64_t extra_bytes, struct error *err);

/*
 * The same for several outputs that are made in one run: *memory is for all, and plans[i]->memory
 * gets region_bytes only.  On ERR_USAGE *memory says what it would take.
 */
struct plan_budget {
    uint64_t bytes;
    unsigned threads;
    unsigned processors;
    uint64_t extra_bytes;
    uint64_t device_bytes; /* of the device that computes; 0: the processor does */
};
int plan_fit_memory_of(struct plan_memory *memory, struct plan *const *plans, size_t count,
                       const struct plan_budget *budget, struct error *err);

/*
 * What outputs take at least, as their plans are made: *memory is all zero at first, and
 * least_bytes is that of all plans added so far, with `extra_bytes` of each.
 */
int plan_add_memory(struct plan_memory *memory, struct plan *plan, uint64_t extra_bytes,
                    struct error *err);

/*
 * Must this target go panel by panel, because its factors fit neither a region nor a worker, or its
 * deltas are too many?  After plan_fit_memory(), which gives workers tiles for such targets.
 */
bool plan_needs_panels(const struct plan_target *target);

/* The blocks of its file that hold bytes of a target, [first, last]. */
void plan_target_blocks(const struct plan *plan, const struct plan_target *target, uint64_t *first,
                        uint64_t *last);

/* The first target of a tensor whose rows end behind `row`: an index, or the end of its targets. */
uint32_t plan_find_target(const struct plan *plan, const struct plan_tensor *tensor, uint64_t row);

/* One read of a block. */
struct plan_read {
    uint32_t input;
    uint64_t offset;   /* in the input, a multiple of PAGE_BYTES */
    uint64_t bytes;    /* a multiple of PAGE_BYTES; may reach behind the end of the input */
    uint64_t needed;   /* bytes that are inside it */
    uint64_t position; /* in the slot, a multiple of PAGE_BYTES */
    bool by_worker;    /* codes in many pieces: the worker reads them */
    const struct plan_tensor *only; /* whose rows are patched in it; NULL: it is not changed */
};

/* The unit of work: PLAN_BLOCK_BYTES at most of one output file. */
struct plan_block {
    uint32_t file;
    uint64_t number;       /* in the whole plan: its digest's place */
    uint64_t offset;       /* in the file, a multiple of PLAN_BLOCK_BYTES */
    uint64_t bytes;        /* valid ones; written rounded up to PAGE_BYTES */
    uint64_t tensor_first; /* tensors that have bytes in it: index of plan.tensors */
    uint64_t tensor_count;
    bool in_place; /* the reads lie where the output is built */
    uint32_t read_count;
    struct plan_read reads[PLAN_READS_MAX];
    uint64_t room_position;  /* in the slot, of the inputs that are patches, one after the other */
    uint64_t room_bytes;     /* of the largest; 0 if in place */
    uint32_t resident_first; /* resident targets that it needs: numbers, count 0..2 */
    uint32_t resident_count;
};

/* Elements of a tensor [first, end). */
struct plan_elements {
    uint64_t first;
    uint64_t end;
};

/*
 * Block `index` of a file.  A slot is [0, PLAN_BLOCK_BYTES) for the output.  The input of a block
 * that is not folded in place begins as near to the start of the slot as it can, if its tensors are
 * made one after the other, and each from its first byte to its last: what is written then goes
 * over input that is not needed any more (docs/ARCHITECTURE.md).
 */
void plan_block(const struct plan *plan, uint32_t file, uint64_t index, struct plan_block *out);

/*
 * Is a block made of the base alone, as it is or converted, with no edit in it and nothing that is
 * the output's own, as a header is?  Two such blocks of plans that have the same shards, in the
 * same order, are alike if they will be the same bytes.
 */
bool plan_block_is_of_base(const struct plan *plan, const struct plan_block *block);
bool plan_blocks_are_alike(const struct plan *x_plan, const struct plan_block *x,
                           const struct plan *y_plan, const struct plan_block *y);

/* The part of a tensor that a block holds, as a byte range inside the tensor's output. */
struct plan_part {
    uint64_t first;
    uint64_t end;
};
struct plan_part plan_block_part(const struct plan_block *block, const struct plan_tensor *tensor);

/*
 * Of a torch file: the tensors [first, end) of the plan whose checksums stand in the block.  Those
 * with bytes in earlier blocks are known once these are computed.
 */
struct plan_span {
    uint64_t first;
    uint64_t end;
};
struct plan_span plan_block_checksums(const struct plan *plan, const struct plan_block *block);

/*
 * Write what a block of a torch file holds besides tensors and the file's head into `memory`, which
 * begins where the block does.  `checksums`: of each tensor of the plan (base/checksum.h).
 */
void plan_block_frame(const struct plan *plan, const struct plan_block *block,
                      const uint32_t *checksums, uint8_t *memory);

/* The blocks with bytes of a tensor. */
uint64_t plan_tensor_blocks(const struct plan_tensor *tensor);

/*
 * The elements of a computed tensor that a part of its output needs: those that it holds bytes of,
 * and of codes whole blocks of quantisation.
 */
struct plan_elements plan_part_elements(const struct plan_tensor *tensor, struct plan_part part);

/* The dtype that a computed tensor is rounded to: of its output, or before it is encoded. */
static inline enum dtype plan_rounded_dtype(const struct plan_tensor *tensor)
{
    return tensor->action == PLAN_ENCODE ? tensor->encoding->middle : (enum dtype)tensor->dtype_out;
}

/* Of a tensor that is written back in its scheme; where there are two, rows are even. */
static inline uint64_t plan_codes_per_byte(const struct plan_tensor *tensor)
{
    return 8 / tensor->encoding->same->matrix.bits;
}

/* Bytes of codes that the elements [first, end) of a tensor whose codes lie apart need at once. */
uint64_t plan_strided_bytes(const struct plan_tensor *tensor, uint64_t first, uint64_t end);

/* Where in the slot of a block the input byte `in_offset` of a tensor lies. */
uint64_t plan_block_position(const struct plan_block *block, const struct plan_tensor *tensor,
                             uint64_t in_offset);

#endif

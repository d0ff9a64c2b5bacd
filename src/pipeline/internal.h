/*
 * internal.h - what the parts of the pipeline share
 *
 * control.c (the calling thread) owns files, slots and the ring; job.c opens what one
 * output is computed from; crew.c runs the workers and their queue; block.c computes one
 * block; factors.c fetches factors.  A block of a torch file goes to the workers twice, because
 * what lies between its tensors waits for the checksums of blocks before it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PIPELINE_INTERNAL_H
#define PIPELINE_INTERNAL_H

#include "compute/encode.h"
#include "io/pool.h"
#include "pipeline/lane.h"
#include "pipeline/pipeline.h"

#include <pthread.h>

/*
 * Companions of codes depend on codes in blocks before them, and what lies between the tensors of a
 * torch file on checksums: so that nothing else waits for these, they come last.
 */
enum block_step { BLOCK_TENSORS, BLOCK_COMPANIONS, BLOCK_SEAL };

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_WAITING, SLOT_COMPUTING, SLOT_WRITING };

#define SLOT_WINDOWS_MAX 24u

/* Bytes of a window that a worker copies into its slot. */
struct slot_piece {
    const uint8_t *from;
    uint64_t position;
    size_t bytes;
};

/* One block in flight.  Belongs to the control thread but while it is SLOT_COMPUTING or shared. */
struct slot {
    enum slot_state state;
    double entered;  /* when, if it is traced */
    struct job *job; /* whose block it is */
    uint64_t turn;   /* when it was started */
    uint8_t *memory;
    struct plan_block block;
    const struct plan_tensor *tensor; /* of the block, that a worker is at */
    struct ring_request reads[PLAN_READS_MAX];
    unsigned reads_left; /* these and windows */
    bool windowed;       /* the base comes through windows */
    struct window *windows[SLOT_WINDOWS_MAX];
    unsigned window_count;
    struct slot_piece pieces[SLOT_WINDOWS_MAX];
    unsigned piece_count;
    struct destination *destinations; /* where it is written: its own output first */
    unsigned destination_count;
    unsigned writes_left;
    bool is_shared;       /* it is written, and a worker clones it */
    enum block_step step; /* what a worker does with it next */
    int status;           /* of the computation */
    struct error error;   /* if status */
    struct slot *next;    /* in a queue */
};

/* A factor A that is packed for many blocks: resident target k lies in region k % 2. */
struct region {
    const struct job *job; /* whose region it is */
    float *packed;
    uint8_t *device;   /* its counterpart, where there is a device */
    uint32_t resident; /* number of the resident target, or PLAN_NO_TARGET */
    bool ready;
    uint64_t blocks_left; /* of the target, not yet computed */
    int status;           /* of the loading */
    struct error error;   /* if status */
    struct region *next;  /* in a queue */
};

/* Of a worker, where the base is quantised (sizes in plan.h). */
struct decoder {
    const struct plan_tensor *tensor; /* that the rest is of; NULL: none */
    uint64_t matrix;
    struct quant_whole whole;
    float *decoded;
    float *nested;
    uint32_t *groups;
    uint8_t *scales;
    uint8_t *zeros;
};

/* Of a worker, where the output is quantised. */
struct encoder {
    uint8_t *middle; /* PLAN_ENCODED_ELEMENTS as what they are rounded to, 4 bytes at most */
    float *values;
    float *absmax;
    uint8_t *codes;
    float *amax; /* plan_memory.scale_count */
};

/* What one worker has to itself (sizes in plan.h). */
struct scratch {
    struct lane *lane;
    struct encoder encoder;  /* all NULL if nothing is */
    struct decoder *decoder; /* NULL if nothing is quantised */
    float *a;
    const struct plan_target **held; /* whose packed A lies in a, or NULL */
    float *b;
    float *tile_w; /* NULL if no target goes panel by panel */
    float *tile_sum;
    uint8_t *raw;
    uint8_t *cut; /* PLAN_CUT_BYTES: an element that a block boundary cuts */
};

struct worker {
    struct crew *crew;
    struct lane lane;
    pthread_t thread;
    bool started;
    struct scratch scratch;
    const struct plan_target *held;
    struct decoder decoder;
};

/*
 * What one output is made from, and the digests of what was made.  The control thread changes its
 * regions, prepare.h its norms and repacked factors before the work, workers the digests of the
 * blocks that they hold.
 */
struct job {
    struct output *output; /* of the control thread */
    const struct plan *plan;
    const struct fold_ops *ops;
    const struct quant_ops *quant;
    const struct encode_ops *encode;
    bool allow_nonfinite;
    bool shares_base;
    struct file *shards;   /* of a quantised base, for what workers read: opened without O_DIRECT */
    struct file *adapters; /* opened inputs behind the shards: index - shard count */
    struct file repacked;  /* PLAN_REPACKED */
    float *norms;          /* plan.norm_count factors of DoRA, made before the work */
    uint8_t *device_norms; /* their counterpart, where there is a device */
    uint32_t shard_count;  /* inputs before the adapters */
    struct region regions[2];
    float *memory; /* of the regions */
    size_t memory_bytes;
    const struct device_ops *pinned; /* by the device, or NULL */
    struct device *device;
    uint64_t (*digests)[2];
    uint32_t
        *checksums; /* of each tensor, as far as its blocks are computed; NULL: no torch files */
};

/*
 * Open the files that workers read and take the memory of factors and digests.  job_close() is for
 * any job, also after a failure; an all-zero job is allowed.
 */
int job_open(struct job *job, const struct pipeline_output *order,
             const struct pipeline_options *options, struct error *err);
void job_close(struct job *job);

/* The workers and their queue. */
struct crew {
    struct ring *ring; /* to wake */

    pthread_mutex_t mutex;
    pthread_cond_t wanted;
    struct slot *first; /* to compute, in order */
    struct slot *last;
    struct slot *finished; /* computed, any order */
    struct region *load;   /* regions to load, before any block */
    struct region *loaded; /* loaded, any order */
    bool opened;
    bool ending;
    struct worker *workers;
    unsigned worker_count;
    float *memory; /* of all scratch */
    size_t memory_bytes;
};

/*
 * Take the memory and start the workers.  crew_close() ends them, also after a failure; an all-zero
 * crew is allowed.
 */
int crew_open(struct crew *crew, const struct plan_memory *memory, struct ring *ring,
              struct error *err);

/* While the workers have nothing to do: what they do is traced. */
void crew_trace(struct crew *crew, struct trace *trace);

/* While the workers have nothing to do: they are going to prepare this job, on the processor. */
void crew_begin(struct crew *crew, const struct job *job);

/* After that: from now on workers compute on the device.  What they hold is forgotten. */
int crew_use_device(struct crew *crew, const struct plan_memory *memory,
                    const struct pipeline_options *options, struct error *err);
/* Take the counterparts of a job's factors and norms, and fill the norms. */
int job_use_device(struct job *job, struct crew *crew, const struct pipeline_options *options,
                   struct error *err);
void crew_close(struct crew *crew);

void crew_give(struct crew *crew, struct slot *slot);            /* to compute */
void crew_give_region(struct crew *crew, struct region *region); /* to load */
/* What was finished since the last call, linked by next. */
void crew_take(struct crew *crew, struct slot **slots, struct region **regions);

/*
 * While the workers have nothing to do: call `share` with the scratch of each, on as many threads,
 * and wait for all.  The error is that of the first in the order of workers.
 */
int crew_share(struct crew *crew,
               int (*share)(void *context, const struct scratch *scratch, struct error *err),
               void *context, struct error *err);

/* Give the absmax of the codes in a slot to the other outputs that it is made for (share.c). */
int share_absmax(const struct scratch *scratch, const struct slot *slot, struct error *err);

/* Clone the block of a slot from the file that it was written to into others (share.c). */
void share_block(struct slot *slot);

/*
 * The next step of the block in a slot: its tensors but for companions; companions, once all codes
 * that they are made from are there; what is not tensors, and the digest, of a torch file once the
 * checksums are there that plan_block_checksums() names.  Where the next step has not to be waited
 * for it is taken as well.
 */
int block_compute(const struct scratch *scratch, struct slot *slot, struct error *err);

/* Companions that are made from the codes, not copied? */
bool block_has_companions(const struct plan *plan, const struct plan_block *block);

/* Fetch and pack all factors A of a target, one behind the other. */
int factors_pack(const struct job *job, const struct scratch *scratch,
                 const struct plan_target *target, float *packed, struct error *err);

/* Fetch `count` elements from the place that a factor says, widened to fp32. */
int factors_fetch(const struct job *job, const struct scratch *scratch,
                  const struct plan_factor *from, float *out, uint64_t count, struct error *err);

/* The same from `skipped` elements behind that place. */
int factors_fetch_at(const struct job *job, const struct scratch *scratch,
                     const struct plan_factor *from, uint64_t skipped, float *out, uint64_t count,
                     struct error *err);

/* `bytes` as they are in an adapter, from `skipped` bytes behind the place. */
int factors_read(const struct job *job, const struct plan_factor *from, uint64_t skipped, void *out,
                 uint64_t bytes, struct error *err);

/* Fold a run of elements of a target: src and dst as in fold_segment. */
struct block_run {
    const struct plan_tensor *tensor;
    const struct plan_target *target; /* NULL: a conversion */
    bool roundtrip;                   /* src is to go through NF4 first; whole blocks of it lie
                                         around the run */
    uint64_t first;                   /* element of the target, without one of the tensor */
    uint64_t count;
    enum dtype dtype_in;  /* of src */
    enum dtype dtype_out; /* of dst */
    const uint8_t *src;   /* not of a quantised tensor before it is decoded */
    uint8_t *dst;
    uint8_t *codes; /* of a quantised tensor: those from byte codes_first of its codes on, or
                       room for pieces of them; NULL: decoded */
    uint64_t codes_first;
};
int run_fold(const struct job *job, const struct scratch *scratch, const struct block_run *run,
             struct error *err);

/*
 * The packed A of all deltas of a target, one behind the other, for a run that a worker makes: from
 * its region or packed now; NULL on error.
 */
const float *run_packed(const struct job *job, const struct scratch *scratch,
                        const struct plan_target *target, struct error *err);

/* Rows [row, row + rows) of every B of a target into scratch->b, and the deltas for fold(). */
int run_fetch_b(const struct job *job, const struct scratch *scratch,
                const struct plan_target *target, uint64_t row, uint64_t rows,
                struct fold_delta deltas[PLAN_DELTAS_MAX], const float *packed, struct error *err);

/* Take the run of a 16-bit tensor through NF4, and fold it. */
int run_fold_roundtrip(const struct job *job, const struct scratch *scratch,
                       const struct block_run *run, struct error *err);

/* Elements of such a tensor as fp32, read from its file; at most PLAN_TILE_COLS. */
int roundtrip_fetch(const struct scratch *scratch, const struct plan_tensor *tensor,
                    const struct file *source, uint64_t first, uint64_t count, float *out,
                    struct error *err);

/* Decode the run of a quantised tensor, and fold it. */
int run_fold_quant(const struct job *job, const struct scratch *scratch,
                   const struct block_run *run, struct error *err);

/*
 * Let the kernel fetch the companions that workers will read for a block that is started: small
 * ones with the first block of their tensor.  A read of theirs stands behind all that the disk has
 * to do.
 */
void decode_expect(const struct job *job, const struct plan_block *block);

/* Elements of a quantised tensor as fp32, read from the base.  Uses scratch->raw. */
int decode_fetch(const struct job *job, const struct scratch *scratch,
                 const struct plan_tensor *tensor, uint64_t first, uint64_t count, float *out,
                 struct error *err);

/*
 * Merge the elements [whole->first, end) of a tensor that is encoded into encoder.middle; `whole`
 * is a run of the tensor without a target, of which src or codes are looked at.
 */
int encode_merge(const struct job *job, const struct scratch *scratch,
                 const struct block_run *whole, uint64_t end, struct error *err);

/* The bytes [first, end) of a tensor's codes in the base's own scheme; its scales are there. */
int same_part(const struct job *job, const struct scratch *scratch, struct slot *slot,
              const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
              struct error *err);

/* The bytes [first, end) of its scales. */
int same_scales(const struct job *job, const struct plan_tensor *tensor, struct plan_part part,
                uint8_t *out, struct error *err);

/* The scale of all its blocks of such a tensor (QUANT_SCALE_TIMES_WHOLE and OVER_WHOLE), or 1. */
int same_whole(const struct job *job, const struct plan_tensor *tensor, float *whole,
               struct error *err);

/* The bytes [first, end) of the codes of a tensor that is encoded; its absmax go to job.repacked.
 */
int encode_part(const struct job *job, const struct scratch *scratch, struct slot *slot,
                const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
                struct error *err);

/* The bytes [first, end) of a companion; all absmax of its tensor are there. */
int encode_companion(const struct job *job, const struct scratch *scratch,
                     const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
                     struct error *err);

/* A run from element `first` of a tensor in a slot on, of one target or of none. */
struct block_run block_run_of(const struct slot *slot, const struct plan_tensor *tensor,
                              const struct plan_target *target, uint64_t first);

/* The same for a target with norms whose A is packed. */
int run_fold_dora(const struct job *job, const struct scratch *scratch, const struct block_run *run,
                  const float *packed, struct error *err);

/* Multiply rows x cols at (row, col) of the target by the factors of delta `index`, made before. */
int dora_scale(const struct job *job, const struct scratch *scratch,
               const struct plan_target *target, uint32_t index, float *w, uint64_t row,
               uint64_t rows, uint64_t col, uint64_t cols, struct error *err);

/*
 * Put the patches of a tensor, as `dtype`, into its bytes [first, end) at `out`: the output where
 * all of it is patches, otherwise the input.  Uses scratch->b and scratch->raw.
 */
int patches_apply(const struct job *job, const struct scratch *scratch,
                  const struct plan_tensor *tensor, enum dtype dtype, uint64_t first, uint64_t end,
                  uint8_t *out, struct error *err);

/* Part of the matrix of a target; its rows follow each other, or are those that cuts name. */
struct rectangle {
    const struct plan_cut *cuts; /* NULL: row, row + 1, ... */
    uint64_t row;
    uint64_t rows; /* 1..PLAN_B_FLOATS / FOLD_PANEL */
    uint64_t col;  /* a multiple of FOLD_GROUP, but for a single row */
    uint64_t cols;
};

static inline uint64_t rectangle_row(const struct rectangle *at, uint64_t index)
{
    return at->cuts ? at->cuts[index].row : at->row + index;
}

/* Add one delta of the target to the rectangle in scratch->tile_w, with panels of its factors. */
int panels_add_delta(const struct job *job, const struct scratch *scratch,
                     const struct plan_delta *delta, uint64_t target_cols,
                     const struct rectangle *at, struct error *err);

/* The same for a target whose factor A fits nowhere: panel by panel. */
int run_fold_panels(const struct job *job, const struct scratch *scratch,
                    const struct block_run *run, struct error *err);

/* What a check of the results of a run says, the first of which is result `done` of the run. */
static inline struct lane_check run_check(const struct block_run *run, uint64_t done)
{
    uint64_t begin = run->target ? run->target->row_first * run->target->cols : 0;

    return (struct lane_check){ .kind = LANE_CHECK_RESULT,
                                .dtype = run->dtype_out,
                                .tensor = run->tensor,
                                .index = begin + run->first + done };
}

#endif

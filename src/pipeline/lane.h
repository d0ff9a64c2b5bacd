/*
 * lane.h - what a worker computes with: the processor, or a stream of a device
 *
 * The worker's code is the same for both.  It names memory by its address on the host: its scratch,
 * its slot, the regions and norms of its job.  For a device these have a counterpart there of the
 * same layout, and operations work on that; so whatever an operation reads has to be uploaded or
 * sent before, and whatever the host reads to be fetched and waited for.  For the processor there
 * is one memory: those calls do nothing, and operations are done when they return.
 *
 * On a device a result that is not finite is found out when the lane is finished; the error is that
 * of the first check, as it would be on the processor.
 *
 * Threads: a lane belongs to one worker.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PIPELINE_LANE_H
#define PIPELINE_LANE_H

#include "compute/device.h"
#include "io/file.h"
#include "pipeline/trace.h"
#include "plan/plan.h"

struct job;
struct slot;

#define LANE_CHECKS_MAX 1024u /* before the lane waits for its stream */
#define LANE_WRITES_MAX 64u
#define LANE_STEPS_MAX (DEVICE_MARKS - 2) /* that are traced; a mark for the end, one for a cut */

enum lane_check_kind {
    LANE_CHECK_RESULT, /* a number of the output */
    LANE_CHECK_BASE,   /* one that a quantised base decodes to */
    LANE_CHECK_F16     /* one that LLM.int8 has as F16 */
};

/* What an operation that finds its result number `bad` not finite is about: number index + bad of
 * the tensor. */
struct lane_check {
    enum lane_check_kind kind;
    enum dtype dtype; /* of the result */
    const struct plan_tensor *tensor;
    uint64_t index;
};

enum lane_memory {
    LANE_SLOT,
    LANE_SCRATCH,
    LANE_REGION_0,
    LANE_REGION_1,
    LANE_NORMS,
    LANE_MEMORIES
};

/* Memory of the host and its counterpart. */
struct lane_mirror {
    const uint8_t *host;
    size_t bytes;
    uint8_t *device;
};

/* Bytes of a file that are written when they have come from the device. */
struct lane_write {
    const struct file *file;
    const uint8_t *bytes;
    size_t count;
    uint64_t offset;
};

struct lane {
    const struct device_ops *ops; /* NULL: the processor, and nothing below is used but job */
    struct device_stream *stream;
    const struct job *job; /* whose block it is */
    const struct slot *slot;
    struct lane_mirror mirrors[LANE_MEMORIES];
    bool busy; /* something is in the stream that nobody has waited for */

    uint8_t *staging; /* pinned, as are the next two */
    size_t staging_used;
    uint64_t *found;        /* the words of the checks, when they have come back */
    const uint64_t *finite; /* LANE_CHECKS_MAX times DEVICE_FINITE */
    uint64_t *words;        /* of the device */
    struct lane_check checks[LANE_CHECKS_MAX];
    unsigned check_count;
    struct lane_write writes[LANE_WRITES_MAX];
    unsigned write_count;

    struct trace *trace; /* NULL: none */
    unsigned number;     /* for it */
    unsigned step_count;
    bool steps_cut; /* those behind the last one are not traced */
    enum trace_kind steps[LANE_STEPS_MAX];
};

static inline bool lane_is_device(const struct lane *lane)
{
    return lane->ops != NULL;
}

#define LANE_STAGING_BYTES (PLAN_LANE_HOST_BYTES - 2 * LANE_CHECKS_MAX * sizeof(uint64_t))

/*
 * Make a lane of a device, with a counterpart of the scratch of its worker and of a slot.  What it
 * takes belongs to the device: PLAN_LANE_HOST_BYTES of the host, and there PLAN_LANE_DEVICE_BYTES
 * beside the two.
 */
int lane_open(struct lane *lane, const struct device_ops *ops, struct device *device,
              const struct plan_memory *memory, const void *scratch, struct error *err);

/* Begin to work for a job, on its block in a slot (NULL: on its factors). */
void lane_begin(struct lane *lane, const struct job *job, const struct slot *slot);
/* Wait for everything, look at all checks; the first error. */
int lane_finish(struct lane *lane, struct error *err);
/* After an error of whoever uses the lane: wait, and forget. */
void lane_abandon(struct lane *lane);

/* ---- transfers ---- */

/*
 * Host to device, from memory that stays as it is until the lane is finished, but for what is
 * fetched into it later: transfers go one after the other.
 */
int lane_upload(struct lane *lane, const void *host, size_t bytes, struct error *err);
/* The same from memory that may change right after. */
int lane_send(struct lane *lane, const void *host, size_t bytes, struct error *err);
/* What operations have put at `from`, into memory of the slot that may be the same. */
int lane_fetch(struct lane *lane, void *out, const void *from, size_t bytes, struct error *err);
/* The same into a file, some time until the lane is finished. */
int lane_write(struct lane *lane, const struct file *file, const void *from, size_t bytes,
               uint64_t offset, struct error *err);

/* ---- operations; `check` NULL: whoever reads the result asks ---- */

/*
 * What an operation of a table returned that the processor has done: 0 if that is FOLD_FINITE or
 * allowed.  `result`: the number that `bad` is about, of a LANE_CHECK_RESULT.
 */
int lane_look(const struct job *job, const struct lane_check *check, uint64_t bad,
              const void *result, struct error *err);

int lane_fold(struct lane *lane, const struct fold_segment *segment, const struct lane_check *check,
              struct error *err);

/* rows x cols to fp32, dense, from rows that are src_stride elements apart. */
int lane_decode(struct lane *lane, float *dst, const void *src, enum dtype dtype, uint64_t rows,
                uint64_t cols, uint64_t src_stride, struct error *err);

/* The way back; a bad index counts through rows of dst_stride. */
int lane_encode(struct lane *lane, void *dst, enum dtype dtype, const float *src, uint64_t rows,
                uint64_t cols, uint64_t dst_stride, const struct lane_check *check,
                struct error *err);

/* Those of device_task.h with the same names, on addresses of the host. */
int lane_panel_sum(struct lane *lane, const struct device_panel_sum *sum, struct error *err);
int lane_add_scaled(struct lane *lane, float *w, const float *sum, float scale, uint64_t count,
                    struct error *err);
int lane_scale_rows(struct lane *lane, const struct device_scale *scale, struct error *err);
int lane_scale_cols(struct lane *lane, const struct device_scale *scale, struct error *err);
int lane_dora_rows(struct lane *lane, const struct device_dora_rows *rows, struct error *err);
int lane_decode_codes(struct lane *lane, float *dst, const struct quant_matrix *matrix,
                      const struct quant_source *source, uint64_t first, uint64_t count,
                      const struct lane_check *check, struct error *err);
int lane_bnb4(struct lane *lane, const struct device_blocks *blocks, struct error *err);
int lane_round_trip(struct lane *lane, const struct device_blocks *blocks, struct error *err);
int lane_scaled(struct lane *lane, const struct device_scaled *scaled,
                const struct lane_check *check, struct error *err);

#endif

/*
 * pipeline.h - carrying out a plan: slots, workers, the ring
 *
 * A slot holds one block: read -> compute -> write -> free, one owner at a time.
 * The calling thread owns the ring and decides; workers compute and hash.  All
 * memory is taken before the first read; after that nothing is allocated.  The
 * factors of the next target are loaded while the present one is folded.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PIPELINE_PIPELINE_H
#define PIPELINE_PIPELINE_H

#include "base/error.h"
#include "base/log.h"
#include "compute/device.h"
#include "compute/encode.h"
#include "compute/fold.h"
#include "io/file.h"
#include "io/ring.h"
#include "plan/plan.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * The way to stop a pipeline from outside.  All zero at first.  pipeline_cancel() may be called
 * from any thread and from signal handlers, before, during and after pipeline_run().
 */
struct pipeline_stop {
    atomic_int cancelled;
    _Atomic(struct ring *) ring; /* to wake, while it runs */
    atomic_int waking;           /* calls that may be using it */
};
void pipeline_cancel(struct pipeline_stop *stop);

/* Have every outlet asked again; from where pipeline_cancel() may be called. */
void pipeline_wake(struct pipeline_stop *stop);

enum pipeline_stage { STAGE_READ, STAGE_COMPUTE, STAGE_WRITE, STAGE_COUNT };

struct pipeline_progress {
    uint64_t bytes_done;               /* of output files */
    double stage_seconds[STAGE_COUNT]; /* slot-seconds spent in each stage so far */
    enum pipeline_stage limit;         /* where most slots were lately */
    uint64_t bytes_prepared;           /* not 0: before the first block, and bytes_done are of
                                          these */
    size_t output;                     /* of the newest block written */
    uint32_t file;                     /* of that output */
};

struct pipeline_options {
    enum ring_kind ring;
    enum file_direct direct;
    const struct fold_ops *ops;
    const struct quant_ops *quant; /* may be NULL if nothing is quantised */
    const struct encode_ops *encode;
    bool share; /* what several outputs have alike is written once and cloned, where that works */
    const struct device_ops *device_ops; /* NULL: the processor computes */
    struct device *device;               /* open, and the caller's */
    const char *trace;                   /* a file for a timeline, or NULL */
    const struct log *log;
    /* Called about ten times a second, on the calling thread; may be NULL. */
    void (*progress)(void *context, const struct pipeline_progress *progress);
    /*
     * Called on the calling thread when all files of an output are written and synced, or when it
     * is given up (then *err says why) and nothing of it is in flight any more; may be NULL.  An
     * error that it sets is that of the output.
     */
    void (*ended)(void *context, size_t output, struct error *err);
    void *context;
};

/*
 * Where the files of an output go while others are made.  Called on the calling thread; neither may
 * block.  Files begin in the order of the plan and finish in any.
 */
struct pipeline_outlet {
    /*
     * May this file be made now?  Asked before it is created, and if not, again after
     * pipeline_wake().  NULL: all files are created before the work.
     */
    bool (*may_begin)(void *context, uint32_t file);
    /* It is written and synced; `digests` are those of its blocks, valid during the call. */
    void (*finished)(void *context, uint32_t file, const uint64_t (*digests)[2]);
    void *context;
};

/* One directory that is made. */
struct pipeline_output {
    const struct plan *plan;
    int directory_fd;
    bool allow_nonfinite;
    bool shares_base;                     /* its shards are those of every output that says so */
    const struct pipeline_outlet *outlet; /* or NULL */
    bool clone_always; /* a run of the plan, or what another output has alike, that cannot be cloned
                          is an error, otherwise it is written in full */
    /* What came of it. */
    uint64_t bytes_written;
    uint64_t bytes_cloned;  /* beside those */
    bool *cloned;           /* of each file: were its runs cloned?  The caller frees */
    struct error error;     /* code 0: it is complete; one that has an error before is not made */
    uint64_t (*digests)[2]; /* XXH3-128 (low, high) of each block of the plan but
                               cloned ones; the caller frees */
};

struct pipeline_result {
    uint64_t bytes_read;
    uint64_t bytes_alike; /* made for one output and alike in others, of these others */
    uint64_t bytes_written;
    double first_write_time; /* CLOCK_MONOTONIC, seconds; when the first write was finished */
    double stage_seconds[STAGE_COUNT];
    const char *ring_name; /* static */
    char ring_reason[160]; /* why not io_uring, or "" */
    bool direct_in;
    bool direct_out;
    bool abandoned; /* transfers may still go on in memory of the device: it must not be closed */
};

/*
 * Create every file of every plan in its directory, allocated in full but for what is cloned, and
 * clone that (where there is an outlet, when that lets it begin), then fold, all outputs in one
 * pass.  Each file is synced.  `memory`: of plan_fit_memory().  An output that fails is given up
 * and the others go on; 0 if none did, otherwise the first error of all.  ERR_CANCELLED soon after
 * pipeline_cancel(), for all outputs that are not complete by then.  ERR_FORMAT names tensor and
 * element of a non-finite result.  Files of a failed output may be left in its directory: the
 * caller removes them.
 */
int pipeline_run(struct pipeline_output *outputs, size_t count, const struct plan_memory *memory,
                 const struct pipeline_options *options, struct pipeline_stop *stop,
                 struct pipeline_result *result, struct error *err);

#endif

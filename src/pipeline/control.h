/*
 * control.h - the state of the thread that decides
 *
 * control.c moves slots through their stages; start.c starts them; outputs.c begins
 * and ends outputs and says whose block is next; ready.c knows what a block waits for;
 * files.c opens and closes the files that blocks need; windows.c reads the base for
 * several outputs; pipeline.c puts all together.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PIPELINE_CONTROL_H
#define PIPELINE_CONTROL_H

#include "pipeline/internal.h"
#include "pipeline/windows.h"

#include <errno.h>

/*
 * While so many files are being synced no block is started, so that neither open files nor requests
 * grow with the number of files.  Blocks that are in flight by then may each end one more.
 */
#define CONTROL_SYNCS_MAX 8u

/* A file that blocks are read from; open while blocks in flight need it. */
struct open_input {
    struct file file;
    unsigned users; /* blocks in flight */
};

/* An output file; open from its first block to the end of its sync. */
struct open_file {
    struct file file;
    bool created;
    bool cloned; /* the runs that the plan says: they have no blocks */
    uint64_t blocks_left;
    struct output *output; /* whose file it is */
    struct ring_request sync;
};

/* So many outputs may get the same bytes from one slot. */
#define CONTROL_DESTINATIONS_MAX 32u

/* Where the bytes of a slot are written: a block of a file. */
struct destination {
    struct slot *slot;
    struct output *output;
    uint32_t file;
    uint64_t number; /* of the block in the output's plan */
    uint64_t offset;
    uint64_t bytes;
    struct ring_request write; /* its file is NULL: none was submitted */
    bool shares;               /* is cloned from where the slot was written, once it is */
    int status;                /* of the cloning */
};

/* One output on its way. */
struct output {
    struct job job;
    struct pipeline_output *order; /* the caller's: plan, directory, what comes of it */
    const struct log *log;
    const atomic_int *cancelled;
    struct open_input *inputs; /* one per input of the plan */
    struct open_file *files;   /* one per file of the plan */
    uint32_t newest_input;     /* what the newest block reads: stays open */

    uint32_t next_file; /* of the next block to start */
    uint64_t next_block;
    size_t next_clone;       /* of that file, not yet passed over */
    uint64_t blocks_started; /* or cloned */
    uint64_t position;       /* how far in the base it is: outputs go through it together */
    uint64_t turn;           /* when its newest block was started */
    uint64_t *codes_left;    /* of each encoding: blocks with its codes that are not computed */
    uint64_t *blocks_left;   /* of each tensor of torch files: those that are not computed */
    uint32_t next_resident;  /* to be loaded */
    uint32_t files_left;     /* not synced */
    unsigned busy;           /* slots, regions and syncs that it has in flight */
    bool held;               /* its outlet lets no further file begin */
    bool failed;
    bool ended;
};

struct control {
    const struct pipeline_options *options;
    struct pipeline_result *result;
    struct error *error; /* the first one of all */
    bool failed;         /* all outputs are given up */
    bool abandoned;      /* the ring is broken: what is in flight may still use memory and files */
    struct ring *ring;
    struct pool pool;
    bool pool_pinned;
    struct trace *trace; /* NULL: none */
    struct crew crew;
    struct slot *slots;
    unsigned slot_count;
    struct destination *destinations; /* of all slots */
    struct windows windows;           /* none if there is one output */
    struct output *outputs;
    size_t output_count;
    bool shares; /* outputs share what they have alike, as far as is known */

    uint64_t turns;     /* blocks started, of all outputs */
    unsigned in_flight; /* requests in the ring */
    unsigned syncs;     /* of them */
    unsigned tasks;     /* given to the crew and not taken back */
    uint32_t newest_file;
    size_t newest_output;

    double booked;
    double shown;
    double stage_seconds[STAGE_COUNT];
    double stage_shown[STAGE_COUNT];
};

/* Start, carry out and finish all blocks; returns when nothing is in flight. */
int control_loop(struct control *control, const atomic_int *cancelled);

/*
 * The first error of an output wins, and no new block of it is started; `output` NULL: all are
 * given up.
 */
void control_fail(struct control *control, struct output *output, const struct error *err);

static inline bool control_gave_up(const struct control *control, const struct output *output)
{
    return control->failed || output->failed;
}

/* A slot has all that it waited for from the ring. */
void control_reads_finished(struct control *control, struct slot *slot);
void control_submit(struct control *control, struct ring_request *request);
void control_release_slot(struct control *control, struct slot *slot);

/* Is everybody given up whom this slot is for? */
bool control_slot_is_vain(const struct control *control, const struct slot *slot);

/* ---- start.c ---- */

/* Read the next blocks into free slots. */
void start_blocks(struct control *control);

/* A slot is in another stage from now on. */
void control_enter(struct control *control, struct slot *slot, enum slot_state state);

/* ---- outputs.c ---- */

/* Create every file, take the memory and open what workers read. */
int output_open(struct output *output, struct pipeline_output *order,
                const struct pipeline_options *options, const atomic_int *cancelled,
                struct error *err);

/* The output whose block is started next; NULL: there is none. */
struct output *output_next(struct control *control);

/* The next block of an output that has one; it stays the next until output_advance(). */
void output_next_block(const struct output *output, struct plan_block *block);
void output_advance(struct control *control, struct output *output);

/* Has it a block that may be started?  Sets `held` where its outlet forbids that. */
bool output_has_blocks(struct output *output);

/* Create a file in full, unless that is done. */
int output_create_file(struct output *output, uint32_t index, struct error *err);

/* End it if it is complete, or if it is given up and nothing of it is in flight. */
void output_check(struct control *control, struct output *output);
void output_end(struct control *control, struct output *output);

/* Close and free what is left. */
void output_close(struct output *output);

/* ---- create.c ---- */

/*
 * Take the list of files, and create all that need not wait for the outlet: a disk that is too
 * small is found before any work.
 */
int output_create_files(struct output *output, struct error *err);

/*
 * Create a file, if it is not there, allocated in full but for what is cloned, and clone that.  If
 * it cannot share storage after all it is made to be written in full.
 */
int output_create_file(struct output *output, uint32_t index, struct error *err);

void control_write_to(struct control *control, struct destination *to);

/* The block of a destination is in its file. */
void control_count_block(struct control *control, struct destination *to);

/* ---- share.c ---- */

/* The block of a destination, in its output's plan. */
struct plan_block share_block_of(const struct destination *to);

/* Write a slot to where it belongs; with sharing, the rest follows when it is written once. */
void share_begin(struct control *control, struct slot *slot);

/* Is it to be cloned, so that the file it is written to may not end before? */
bool share_is_due(const struct slot *slot);

/* All writes of a slot have ended. */
void share_written(struct control *control, struct slot *slot);

/* A worker has cloned it. */
void share_finished(struct control *control, struct slot *slot);

/* ---- ready.c ---- */

/* Load the next resident targets into their regions, if their predecessors there are done with. */
void ready_load(struct control *control, struct output *output);

/* Is there what a step of a block needs: all factors; all codes; all checksums? */
bool ready_step(const struct output *output, const struct plan_block *block, enum block_step step);

/* The checksums of the parts in a block of a torch file are added. */
void ready_summed(struct output *output, const struct plan_block *block);

/* The tensors of a block are computed: its factors are free, and its codes are there. */
void ready_computed(struct control *control, struct output *output, const struct plan_block *block);

/* ---- files.c ---- */

/* Open an output file, if it is not open. */
int control_open_output(struct control *control, struct output *output, uint32_t file,
                        struct error *err);

/* Open what the block of a slot reads itself; on success each has one user more. */
int control_open_inputs(struct control *control, struct output *output, const struct slot *slot,
                        struct error *err);
void control_release_inputs(struct output *output, const struct slot *slot);

/* Does the slot read this itself, not through windows? */
bool control_reads_itself(const struct slot *slot, const struct plan_read *read);

/* Forget the page cache behind a read, where it went through it. */
void control_drop_input(struct output *output, const struct plan_read *read);

/* Count a block; the last one of a file cuts it to size and starts its sync. */
int control_block_written(struct control *control, const struct destination *to, struct error *err);
int control_file_synced(struct control *control, struct ring_request *request, struct error *err);

#endif

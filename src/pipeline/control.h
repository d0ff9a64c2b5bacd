/*
 * control.h - the state of the thread that decides
 *
 * control.c moves slots through their stages; files.c opens and closes the files
 * that they need; pipeline.c puts both together.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PIPELINE_CONTROL_H
#define PIPELINE_CONTROL_H

#include "pipeline/internal.h"

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
struct open_output {
    struct file file;
    uint64_t blocks_left;
    struct ring_request sync;
};

struct control {
    const struct plan *plan;
    const struct pipeline_options *options;
    struct pipeline_result *result;
    struct error *error; /* the first one */
    bool failed;
    bool abandoned; /* the ring is broken: what is in flight may still use memory and files */
    int directory_fd;
    struct ring *ring;
    struct pool pool;
    struct job job;
    struct crew crew;
    struct slot *slots;
    unsigned slot_count;
    struct open_input *inputs;   /* one per input of the plan */
    struct open_output *outputs; /* one per file of the plan */
    uint32_t newest_input;       /* what the newest block reads: stays open */

    uint32_t next_file; /* of the next block to start */
    uint64_t next_block;
    uint64_t blocks_started;
    uint64_t *codes_left;   /* of each encoding: blocks with its codes that are not computed */
    uint32_t next_resident; /* to be loaded */
    unsigned in_flight;     /* requests in the ring */
    unsigned syncs;         /* of them */
    unsigned tasks;         /* given to the crew and not taken back */
    uint32_t newest_file;

    double booked;
    double shown;
    double stage_seconds[STAGE_COUNT];
    double stage_shown[STAGE_COUNT];
};

/* Start, carry out and finish all blocks; returns when nothing is in flight. */
int control_loop(struct control *control, const atomic_int *cancelled);

/* Open what a block needs, if it is not open; on success its inputs have one user more. */
int control_open_block(struct control *control, const struct plan_block *block, struct error *err);
void control_release_inputs(struct control *control, const struct plan_block *block);

/* Forget the page cache behind a read, where it went through it. */
void control_drop_input(struct control *control, const struct plan_read *read);

/* Count a block; the last one of a file cuts it to size and starts its sync. */
int control_block_written(struct control *control, const struct plan_block *block,
                          struct error *err);
int control_file_synced(struct control *control, struct ring_request *request, struct error *err);

#endif

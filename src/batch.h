/*
 * batch.h - several outputs of one base; only src/batch*.c include it
 *
 * batch.c opens and closes; batch_run.c makes them; batch_add.c collects the outputs and their
 * names; batch_jobs.c reads them from a file; batch_list.c writes which ones there are;
 * batch_describe.c prints.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BATCH_H
#define BATCH_H

#include "merge.h"

/* One output; its texts belong to the batch or to the caller. */
struct batch_output {
    struct lorafold_batch *batch;
    const char *name;
    char *path; /* NULL: there is no output directory */
    struct lorafold_merge_options options;
    struct lorafold_merge *merge; /* NULL: left out or existing */
    enum lorafold_output_state state;
    struct error error; /* if left out or failed */
    struct outdir *outdir;
    size_t number; /* in the pipeline */
};

struct lorafold_batch {
    struct lorafold_merge_options options;
    bool skip_existing;
    struct log log;
    double opened_at;
    struct base base;
    struct batch_output *outputs;
    size_t count;
    size_t capacity;
    void **kept; /* memory of names, paths and lists */
    size_t kept_count;
    size_t kept_capacity;
    struct plan_memory memory;
    struct machine machine;
    struct pipeline_stop stop;
    struct pipeline_output *orders; /* of those that are made */
    struct batch_output **made;
    size_t made_count;
    struct pipeline_result result;
    struct lorafold_batch_report report;
    bool directory_made; /* by this run */
    bool opened;
    bool ran;
};

/* A copy that belongs to the batch; NULL without memory. */
void *batch_keep(struct lorafold_batch *batch, const void *data, size_t bytes);
char *batch_keep_text(struct lorafold_batch *batch, const char *text);

/* ERR_USAGE for a name that cannot be a directory of its own below the output directory. */
int batch_check_name(const char *name, struct error *err);

/* A new output; ERR_USAGE if its name is taken or cannot be one. */
int batch_add(struct lorafold_batch *batch, const char *name,
              const struct lorafold_merge_options *options, struct error *err);

/* ---- batch.c ---- */
/* The inputs of all outputs, each once, in a list that the caller frees. */
const char **batch_list_inputs(const struct lorafold_batch *batch, size_t *count);

/* ERR_USAGE where a link would lead out of the directory for all. */
int batch_refuse_link(const struct batch_output *output, struct error *err);

/* ---- batch_list.c ---- */
/* Add the outputs of this batch, as they ended, to the list in the directory for all. */
int batch_list_update(const struct lorafold_batch *batch, struct error *err);

/* ---- batch_describe.c ---- */
const char *batch_state_name(enum lorafold_output_state state);

#endif

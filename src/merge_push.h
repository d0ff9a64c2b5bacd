/*
 * merge_push.h - a merge whose output goes to the Hub while it is made
 *
 * With a local output its shards are sent as they are finished; the output is
 * published as ever, then the rest is sent and committed.  Without one (no_local) a
 * shard is removed once the Hub has it, at most two are there at a time, and what is
 * left of the work directory is removed after the commit.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef MERGE_PUSH_H
#define MERGE_PUSH_H

#include "merge.h"

struct merge_push;

/* ERR_USAGE for options that cannot be; finds a place for the work where there is no output. */
int merge_push_check(struct lorafold_merge *merge, struct error *err);

/* Bytes of the shards that are on the disk at the same time. */
uint64_t merge_push_disk_bytes(const struct lorafold_merge *merge);

/* What it takes beside the merge. */
uint64_t merge_push_memory(const struct lorafold_merge *merge);

/* Ask the Hub before the work. */
int merge_push_open(struct lorafold_merge *merge, struct error *err);

/* The work directory is there: from now on finished shards are sent.  Sets the outlet. */
int merge_push_begin(struct lorafold_merge *merge, const struct outdir *outdir, struct error *err);

/* Why a run was cancelled: perhaps because the push had failed. */
int merge_push_explain(struct lorafold_merge *merge, struct error *err);

/* Send what is not a shard, and commit.  The output is published, or there is none. */
int merge_push_end(struct lorafold_merge *merge, struct error *err);

void merge_push_close(struct lorafold_merge *merge);

#endif

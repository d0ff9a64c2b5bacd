/*
 * trace.h - what happened when, as a file for chrome://tracing and ui.perfetto.dev
 *
 * The file is JSON of the Trace Event Format: complete events ("X"), times in microseconds since
 * the trace was opened.  A row is a slot, a worker or a stream.
 *
 * Threads: trace_add() from any.  A NULL trace is allowed everywhere and does nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PIPELINE_TRACE_H
#define PIPELINE_TRACE_H

#include "base/error.h"

#include <stdint.h>

enum trace_kind {
    TRACE_READ, /* rows are slots */
    TRACE_WAIT,
    TRACE_WRITE,
    TRACE_COMPUTE, /* rows are workers */
    TRACE_FACTORS,
    TRACE_HASH,
    TRACE_UPLOAD, /* rows are streams */
    TRACE_KERNELS,
    TRACE_DOWNLOAD,
    TRACE_KINDS
};

#define TRACE_NO_BLOCK UINT64_MAX

struct trace;

/* Create or empty the file; ERR_USAGE if that cannot be done. */
int trace_open(struct trace **out, const char *path, struct error *err);

/* `row`: number of the slot, worker or stream; times of clock_seconds(). */
void trace_add(struct trace *trace, enum trace_kind kind, unsigned row, uint64_t block,
               double begin, double end);

/* ERR_FAILED if the file could not be written.  Frees it in any case. */
int trace_close(struct trace *trace, struct error *err);

#endif

/*
 * log.h - sentences for people on their way to whoever shows them
 *
 * The library never prints.  The caller gives a sink; sentences are in the same
 * style as errors.  Threads: log_say() may be called from any thread when the
 * sink may; the pipeline calls it from one thread only.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level {
    LOG_WARNING, /* the result may not be what was meant; a refusal with --strict where said */
    LOG_NOTICE,  /* something the user should know */
    LOG_DETAIL   /* shown with -v */
};

struct log {
    void (*write)(void *context, enum log_level level, const char *sentence);
    void *context;
};

/* NULL and a log without a sink are allowed: nothing happens. */
void log_say(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif

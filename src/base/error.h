/*
 * error.h - what went wrong, as a code for programs and a sentence for people
 *
 * A function that can fail returns 0 or one of the codes below and takes a
 * struct error as its last parameter.  The layer that notices the failure
 * writes the sentence; the layers above may put context before it.
 *
 * Sentences: lower case, no full stop, subject in 'single quotes', numbers
 * with units, the limit beside the value, and what to do when that is known.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stddef.h>

/* Each code is one exit status of the command-line program. */
enum {
    ERR_FAILED = 1,    /* storage, device, memory or network failed; a retry may help */
    ERR_USAGE = 2,     /* the caller asked for something that cannot be run as given */
    ERR_FORMAT = 3,    /* an input is damaged, unsupported, or gives a non-finite result */
    ERR_MISMATCH = 4,  /* base and adapter are valid but do not fit each other */
    ERR_DIFFERENT = 5, /* verification found a difference */
    ERR_CANCELLED = 6  /* the caller cancelled; the program exits 130 or 143 instead */
};

struct error {
    int code; /* 0, or one of the codes above */
    char text[1024];
};

/* Store code and sentence; returns code, so that `return error_set(...)` reads well. */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Like error_set(ERR_FAILED), with ": " and the reason that errno gives. */
int error_set_errno(struct error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* error_set(ERR_FAILED, "out of memory ..."): what was to hold `what`. */
int error_no_memory(struct error *err, const char *what);

/* Put "<context>: " before the sentence already stored. */
void error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Make text from a file safe to print: control characters, and bytes that are
 * not valid UTF-8, are shown as \xNN; text longer than the buffer ends in "...".
 * Returns `buf`.  `text` is a pointer and a length because names may hold NUL.
 */
#define QUOTED_BYTES 208
const char *error_quote(char *buf, size_t buf_bytes, const char *text, size_t text_bytes);

#endif

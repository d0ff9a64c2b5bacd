/*
 * lines.h - whole lines out of a non-blocking pipe
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef HUB_LINES_H
#define HUB_LINES_H

#include "hub/helper.h"

#include <stdbool.h>
#include <stddef.h>

struct lines {
    char data[HUB_LINE_BYTES_MAX];
    size_t bytes;
    size_t taken; /* of them, the lines that were handed out */
    bool ended;   /* nothing more will come */
};

/* Read what is there, as far as it fits. */
void lines_fill(struct lines *lines, int fd);

/* The next line without its end, valid until the next lines_fill(); false if there is none yet. */
bool lines_take(struct lines *lines, const char **line, size_t *line_bytes);

/* A line is longer than the buffer. */
bool lines_overlong(const struct lines *lines);

/* Forget what is there. */
void lines_drop(struct lines *lines);

#endif

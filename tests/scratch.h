/*
 * scratch.h - a directory of its own for a cmocka test or a group of tests, and files in it
 *
 * scratch_make() and scratch_remove() are for set-up and tear-down.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include "io_temp.h"

static char *scratch; /* the path of the directory */

static inline int scratch_make(void **state)
{
    (void)state;
    scratch = temp_make("/tmp");
    return 0;
}

static inline int scratch_remove(void **state)
{
    (void)state;
    temp_remove(scratch);
    return 0;
}

/* A path in the directory.  Four of them last until the fifth is asked for. */
static inline const char *in_scratch(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;

    next = (next + 1) % 4;
    snprintf(paths[next], sizeof(paths[next]), "%s/%s", scratch, name);
    return paths[next];
}

static inline void scratch_parents(const char *name)
{
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        char above[512];

        snprintf(above, sizeof(above), "%.*s", (int)(slash - name), name);
        mkdir(in_scratch(above), 0777);
    }
}

/* The directory `name`, with those above it. */
static inline void scratch_directory(const char *name)
{
    scratch_parents(name);
    mkdir(in_scratch(name), 0777);
}

/* The file `name`, with the directories above it. */
static inline void scratch_write(const char *name, const void *bytes, size_t count)
{
    scratch_parents(name);
    temp_write(in_scratch(name), bytes, count);
}

static inline void scratch_text(const char *name, const char *text)
{
    scratch_write(name, text, strlen(text));
}

#endif

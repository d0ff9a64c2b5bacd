/*
 * io_temp.h - a directory of its own for a test, on a real disk, removed at the end
 *
 * Below $TMPDIR or, without it, the current directory: /tmp may be memory, where direct I/O means
 * nothing.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_IO_TEMP_H
#define TESTS_IO_TEMP_H

#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* `base` NULL: as said above.  Ends the program if it cannot be made. */
static inline char *temp_make(const char *base)
{
    char path[PATH_MAX];
    char *real;

    if (!base)
        base = getenv("TMPDIR") ? getenv("TMPDIR") : ".";
    snprintf(path, sizeof(path), "%s/lorafold-test-XXXXXX", base);
    if (!mkdtemp(path) || !(real = realpath(path, NULL))) {
        perror(path);
        exit(1);
    }
    return real;
}

static inline int temp_remove_entry(const char *path, const struct stat *st, int type,
                                    struct FTW *walk)
{
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

static inline void temp_remove_tree(const char *path)
{
    nftw(path, temp_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* What temp_make() gave. */
static inline void temp_remove(char *path)
{
    temp_remove_tree(path);
    free(path);
}

/* Enough of a file for a test; ends the program if it fails. */
static inline void temp_write(const char *path, const void *bytes, size_t count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (fd < 0 || write(fd, bytes, count) != (ssize_t)count || close(fd) < 0) {
        perror(path);
        exit(1);
    }
}

/* xorshift64*: the same numbers on every machine for the same seed. */
static inline uint64_t temp_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

#endif

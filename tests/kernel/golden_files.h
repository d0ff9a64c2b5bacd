/*
 * golden_files.h - the files of a directory of golden cases, which begin with eight bytes of their
 * kind
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_KERNEL_GOLDEN_FILES_H
#define TESTS_KERNEL_GOLDEN_FILES_H

#include "kernel/kernel_check.h"

#include <dirent.h>

static inline void golden_bytes(FILE *file, void *out, size_t bytes, const char *path)
{
    CHECK(bytes == 0 || fread(out, bytes, 1, file) == 1, "'%s' is short", path);
}

static inline FILE *golden_open(const char *path, const char *magic)
{
    FILE *file = fopen(path, "rb");
    char found[8];

    CHECK(file, "'%s'", path);
    golden_bytes(file, found, sizeof(found), path);
    CHECK(memcmp(found, magic, sizeof(found)) == 0, "'%s'", path);
    return file;
}

static inline void golden_close(FILE *file, const char *path)
{
    CHECK(fgetc(file) == EOF, "'%s' is long", path);
    fclose(file);
}

/* Every file without a '.' in its name, of which there are `least` or more. */
static inline void golden_each(const char *directory, unsigned least,
                               void (*check)(const char *path))
{
    DIR *dir = opendir(directory);
    struct fold_environment environment;
    struct dirent *entry;
    unsigned count = 0;
    char path[4096];

    CHECK(dir, "'%s'", directory);
    fold_environment_enter(&environment);
    while ((entry = readdir(dir))) {
        if (strchr(entry->d_name, '.'))
            continue;
        snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        check(path);
        count++;
    }
    fold_environment_leave(&environment);
    closedir(dir);
    printf("%u files\n", count);
    CHECK(count >= least, "there are %u files in '%s'", count, directory);
}

#endif

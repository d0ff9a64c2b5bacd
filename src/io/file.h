/*
 * file.h - one file, opened for large positional transfers or for small reads
 *
 * An input is opened read-only and never written.  Direct I/O (O_DIRECT) is
 * probed when the file is opened: open() may accept the flag where read() then
 * refuses it, so a file opened with FILE_DIRECT_AUTO has read (and, for an output,
 * written back) one page before the caller gets it.  Where direct I/O is refused,
 * needs more than page alignment or has no meaning (tmpfs), the same calls work
 * through the page cache.
 *
 * Threads: file_pread() may run on several threads at once; the rest belongs to one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef IO_FILE_H
#define IO_FILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum file_direct {
    FILE_DIRECT_AUTO, /* O_DIRECT where it works */
    FILE_DIRECT_OFF,  /* page cache; the caller drops it behind itself with file_drop_cache() */
    FILE_DIRECT_ON    /* O_DIRECT or an error (tests) */
};

/* What says whether a file is still the one that was planned with. */
struct file_identity {
    uint64_t device;
    uint64_t inode;
    uint64_t bytes;
    int64_t mtime_seconds;
    int64_t mtime_nanoseconds;
    int64_t ctime_seconds;
    int64_t ctime_nanoseconds;
};

struct file {
    int fd;      /* -1 when closed */
    bool direct; /* fd has O_DIRECT: memory, offset and length must be multiples of PAGE_BYTES */
    struct file_identity identity; /* inputs: as fstat'ed when opened */
};

#define FILE_CLOSED ((struct file){ .fd = -1 })

/*
 * Open a regular file read-only; links are followed.  A path that does not exist is ERR_USAGE,
 * one that is not a regular file (directory, FIFO, device) is ERR_FORMAT, and opening it does not
 * block; a dangling link or a loop of links is ERR_FORMAT and says so.
 */
int file_open_input(struct file *out, const char *path, enum file_direct direct, struct error *err);

/*
 * Create `name` in the open directory `directory_fd`; it must not exist.  `bytes` are allocated
 * at once (raw fallocate, ftruncate where that is not supported), so that a full disk is found
 * here: no space is ERR_FAILED and says how much was wanted.
 */
int file_create_output(int directory_fd, const char *name, uint64_t bytes, struct error *err);

/* A part of a file. */
struct file_range {
    uint64_t offset;
    uint64_t bytes;
};

/*
 * The same, but for `spared` (ascending, apart, inside the file): these are left as holes, because
 * the caller lets them share the storage of another file, and take no space.
 */
int file_create_sparing(int directory_fd, const char *name, uint64_t bytes,
                        const struct file_range *spared, size_t spared_count, struct error *err);

/*
 * Open an output that file_create_output() made, for writing; never creates or truncates.  What it
 * holds stays as it is: direct I/O is probed by reading the first page and writing it back.
 */
int file_open_output(struct file *out, int directory_fd, const char *name, enum file_direct direct,
                     struct error *err);

/* Cut the file to its true size (direct writes are whole pages). */
int file_truncate(const struct file *file, uint64_t bytes, struct error *err);

/* Read exactly `bytes` at `offset`; a short file is ERR_FORMAT.  Not for direct files. */
int file_pread(const struct file *file, void *buf, size_t bytes, uint64_t offset,
               struct error *err);

/* Write all of `bytes`; not for direct files. */
int file_pwrite(const struct file *file, const void *buf, size_t bytes, uint64_t offset,
                struct error *err);

/* Ask the kernel to fetch a range soon; a hint. */
void file_will_need(const struct file *file, uint64_t offset, uint64_t bytes);

/*
 * Ask the kernel to forget a range that was read or written; a hint.  Of an output, the writing of
 * this range is only started, and all that lies more than 16 MiB before it is waited for and
 * forgotten, so that dirty pages stay few and the caller is seldom stopped.
 */
void file_drop_cache(const struct file *file, uint64_t offset, uint64_t bytes);

int file_sync(const struct file *file, struct error *err);
void file_close(struct file *file); /* a closed file is allowed */

/* fstat of `path` now equals `then`?  ERR_FAILED with a sentence that names the path if not. */
int file_check_unchanged(const char *path, const struct file_identity *then, struct error *err);

/*
 * A whole small file into memory that the caller frees; `*out` is followed by a NUL that is not
 * counted.  More than `bytes_max` is ERR_FORMAT and says the limit.
 */
int file_read_all(char **out, size_t *out_bytes, const char *path, size_t bytes_max,
                  struct error *err);

#endif

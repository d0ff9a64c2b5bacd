/*
 * outdir.h - an output directory that looks finished only when it is
 *
 * Work happens in a directory of its own under a lock that dies with its owner:
 *
 *   OUT does not exist     work in OUT.partial/, one rename at the end
 *   OUT exists, overwrite  work in OUT.partial/, then OUT and OUT.partial change places
 *                          (RENAME_EXCHANGE) and the old one is removed; where the file
 *                          system cannot do that, OUT is renamed to OUT.lorafold-old and then
 *                          OUT.partial to OUT
 *   OUT is empty, or an    work in OUT/.lorafold.partial/, then every file is renamed into OUT,
 *   empty mount point      those named in `last` at the end (index, configuration)
 *
 * OUT may be a link to a directory: work happens where it leads to.  A mount point that holds
 * more than lost+found is refused, because it cannot be replaced in one step.
 *
 * Calling sequence: outdir_open(), create files in outdir_fd(), sync them, then outdir_publish(),
 * or outdir_discard() on any failure; then outdir_close().
 *
 * Only directories that hold the file .lorafold-work, which is also the lock, are removed without
 * being asked: it is made first and removed last in each work directory, and put into an old one
 * before that is removed.  A stale work directory that nobody locks is removed with a notice; one
 * that is locked, or that is somebody else's, is ERR_USAGE.  When a run ended between the two
 * renames (OUT is missing, OUT.lorafold-old is there), the next outdir_open() renames the old one
 * back with a notice.
 *
 * Overwriting removes only what looks like a model directory (it holds lorafold.json, config.json
 * or a .safetensors file, no subdirectory that is a mount point or that of an input, and not the
 * current directory); anything else is refused.
 *
 * Threads: one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef IO_OUTDIR_H
#define IO_OUTDIR_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct outdir;

/*
 * Can `path` be written, without touching anything?  ERR_USAGE if it exists and is not empty and
 * `overwrite` is false, if its parent does not exist or is not writable, if it is not a directory,
 * or if it lies in, above, or is one of `input_directories` (compared by device and inode along
 * the resolved path, so links do not hide it), or if a directory made beside it (OUT.partial) is.
 * An input may also be a file: then OUT may lie beside it, but must not hold it, nor what it links
 * to.
 */
int outdir_check(const char *path, bool overwrite, const char *const *input_directories,
                 size_t input_directory_count, struct error *err);

/*
 * Bytes free for this user on the file system that will hold `path`; its parent must exist.
 * UINT64_MAX where the file system does not tell.
 */
int outdir_free_bytes(const char *path, uint64_t *out, struct error *err);

/*
 * Open a file without a name, readable and writable, on the file system that will hold `path`, to
 * try there what it can do; it is gone when it is closed.  ERR_FAILED where there is no such file.
 */
int outdir_open_unnamed(int *fd, const char *path, struct error *err);

/*
 * outdir_check() again, then lock and make the work directory.  On success the caller closes *out;
 * on failure it is unchanged.  `log` is used until outdir_close() and may be NULL.
 */
int outdir_open(struct outdir **out, const char *path, bool overwrite,
                const char *const *input_directories, size_t input_directory_count,
                const struct log *log, struct error *err);

/*
 * The open work directory, for file_create_output() and openat(); belongs to the outdir, and is -1
 * once that is published or discarded.
 */
int outdir_fd(const struct outdir *outdir);

/*
 * The open directory into which outdir_publish() moves files one by one; -1 where it renames the
 * work directory as a whole.  Belongs to the outdir.
 */
int outdir_final_fd(const struct outdir *outdir);

/* Create and sync a small file in the work directory. */
int outdir_write_file(struct outdir *outdir, const char *name, const void *bytes, size_t count,
                      struct error *err);

/*
 * Sync the work directory and put it in place.  `last` names the files that make a directory look
 * like a model, in the order in which they are to appear (those that do not exist are skipped);
 * used where files are renamed one by one.  After success the output is published; after a failure
 * outdir_discard() may still be called.
 */
int outdir_publish(struct outdir *outdir, const char *const *last, size_t last_count,
                   struct error *err);

/* Remove the work directory and everything in it; what existed before is as it was. */
void outdir_discard(struct outdir *outdir);

/* Release the lock and free.  Discards if not published.  NULL is allowed. */
void outdir_close(struct outdir *outdir);

#endif

#include "io/file.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One call transfers less than 2 GiB whatever is asked for, so ask for less. */
#define TRANSFER_BYTES_MAX GIB

/* Dirty pages of an output without direct I/O that may lie behind the last file_drop_cache(). */
#define DIRTY_BYTES (16 * MIB)

int file_truncate(const struct file *file, uint64_t bytes, struct error *err)
{
    int result;

    if (bytes > INT64_MAX)
        return error_set(err, ERR_FAILED, "no file can have %" PRIu64 " bytes", bytes);
    do {
        result = ftruncate(file->fd, (off_t)bytes);
    } while (result < 0 && errno == EINTR);
    if (result < 0)
        return error_set_errno(err, "cannot cut the file to %" PRIu64 " bytes", bytes);
    return 0;
}

int file_pread(const struct file *file, void *buf, size_t bytes, uint64_t offset, struct error *err)
{
    uint8_t *next = buf;
    size_t rest = bytes;

    if (offset > INT64_MAX || bytes > INT64_MAX - offset)
        return error_set(err, ERR_FORMAT, "%zu bytes at %" PRIu64 " are past the end of any file",
                         bytes, offset);
    while (rest) {
        ssize_t count = pread(file->fd, next, min_u64(rest, TRANSFER_BYTES_MAX),
                              (off_t)(offset + (bytes - rest)));

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return error_set_errno(err, "cannot read %zu bytes at %" PRIu64, bytes, offset);
        if (count == 0)
            return error_set(err, ERR_FORMAT,
                             "%zu bytes at %" PRIu64 " are wanted, but the file ends at %" PRIu64,
                             bytes, offset, offset + (bytes - rest));
        next += count;
        rest -= (size_t)count;
    }
    return 0;
}

int file_pwrite(const struct file *file, const void *buf, size_t bytes, uint64_t offset,
                struct error *err)
{
    const uint8_t *next = buf;
    size_t rest = bytes;

    if (offset > INT64_MAX || bytes > INT64_MAX - offset)
        return error_set(err, ERR_FAILED, "no file can have %zu bytes at %" PRIu64, bytes, offset);
    while (rest) {
        ssize_t count = pwrite(file->fd, next, min_u64(rest, TRANSFER_BYTES_MAX),
                               (off_t)(offset + (bytes - rest)));

        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && (errno == ENOSPC || errno == EDQUOT))
            return error_set_errno(err, "no space for %zu bytes at %" PRIu64, bytes, offset);
        if (count < 0)
            return error_set_errno(err, "cannot write %zu bytes at %" PRIu64, bytes, offset);
        if (count == 0)
            return error_set(err, ERR_FAILED, "cannot write %zu bytes at %" PRIu64, bytes, offset);
        next += count;
        rest -= (size_t)count;
    }
    return 0;
}

void file_will_need(const struct file *file, uint64_t offset, uint64_t bytes)
{
    if (offset <= INT64_MAX && bytes <= INT64_MAX - offset && bytes)
        (void)posix_fadvise(file->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_WILLNEED);
}

void file_drop_cache(const struct file *file, uint64_t offset, uint64_t bytes)
{
    int flags = fcntl(file->fd, F_GETFL);

    if (flags < 0 || offset > INT64_MAX || bytes > INT64_MAX - offset || bytes == 0)
        return;
    if ((flags & O_ACCMODE) == O_RDONLY) {
        (void)posix_fadvise(file->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
        return;
    }
    /*
     * A dirty page cannot be dropped, and waiting for this range here would stop the caller while
     * the disk writes.  So it is only started, and what lies far enough behind, which is written
     * or nearly so, is waited for and dropped.
     */
    (void)sync_file_range(file->fd, (off_t)offset, (off_t)bytes, SYNC_FILE_RANGE_WRITE);
    if (offset > DIRTY_BYTES) {
        off_t behind = (off_t)(offset - DIRTY_BYTES);

        (void)sync_file_range(file->fd, 0, behind,
                              SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                  SYNC_FILE_RANGE_WAIT_AFTER);
        (void)posix_fadvise(file->fd, 0, behind, POSIX_FADV_DONTNEED);
    }
}

int file_sync(const struct file *file, struct error *err)
{
    int result;

    do {
        result = fsync(file->fd);
    } while (result < 0 && errno == EINTR);
    return result < 0 ? error_set_errno(err, "cannot sync the file to its storage") : 0;
}

int file_read_all(char **out, size_t *out_bytes, const char *path, size_t bytes_max,
                  struct error *err)
{
    struct file file = FILE_CLOSED;
    char shown[512];
    char *data = NULL;
    size_t bytes;
    int status;

    error_quote(shown, sizeof(shown), path, strlen(path));
    status = file_open_input(&file, path, FILE_DIRECT_OFF, err);
    if (status)
        return status;
    if (file.identity.bytes > bytes_max) {
        status = error_set(err, ERR_FORMAT, "'%s' has %" PRIu64 " bytes, at most %zu are read",
                           shown, file.identity.bytes, bytes_max);
        goto out;
    }
    bytes = (size_t)file.identity.bytes;
    data = bytes < SIZE_MAX ? malloc(bytes + 1) : NULL;
    if (!data) {
        status = error_no_memory(err, shown);
        goto out;
    }
    status = file_pread(&file, data, bytes, 0, err);
    if (status) {
        error_prefix(err, "'%s'", shown);
        goto out;
    }
    data[bytes] = '\0';
    *out = data;
    *out_bytes = bytes;
    data = NULL;
out:
    free(data);
    file_close(&file);
    return status;
}

#include "io/file.h"

#include "base/bytes.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* A sentence holds 1024 bytes; a longer path ends in "...". */
#define SHOWN_BYTES 512

/* UINT64_MAX: unknown; some file systems in user space tell nothing. */
static uint64_t free_bytes(int fd)
{
    struct statvfs vfs;
    uint64_t bytes;

    if (fstatvfs(fd, &vfs) < 0 || vfs.f_blocks == 0 || !mul_u64(vfs.f_bavail, vfs.f_frsize, &bytes))
        return UINT64_MAX;
    return bytes;
}

static int no_space(int fd, const char *shown, uint64_t bytes, struct error *err)
{
    struct text text = { 0 };
    uint64_t available = free_bytes(fd);

    text_addf(&text, "no space for '%s': ", shown);
    text_add_bytes(&text, bytes);
    text_adds(&text, " wanted");
    if (available != UINT64_MAX) {
        text_adds(&text, ", ");
        text_add_bytes(&text, available);
        text_adds(&text, " free");
    }
    error_set(err, ERR_FAILED, "%s", text.failed ? "no space left for the output" : text.data);
    text_release(&text);
    return ERR_FAILED;
}

static int set_size(int fd, uint64_t bytes)
{
    int result;

    do {
        result = ftruncate(fd, (off_t)bytes);
    } while (result < 0 && errno == EINTR);
    return result;
}

/* Also lengthens the file.  Where a file system cannot allocate, the size is all there is to set.
 */
static int allocate_range(int fd, uint64_t offset, uint64_t bytes)
{
    int result;

    if (bytes == 0)
        return 0;
    do {
        result = fallocate(fd, 0, (off_t)offset, (off_t)bytes);
    } while (result < 0 && errno == EINTR);
    return result < 0 && (errno == EOPNOTSUPP || errno == ENOSYS) ? set_size(fd, offset + bytes)
                                                                  : result;
}

/* What lies before, between and behind the spared parts. */
static int allocate_rest(int fd, uint64_t bytes, const struct file_range *spared,
                         size_t spared_count)
{
    uint64_t at = 0;

    for (size_t i = 0; i < spared_count; i++) {
        if (allocate_range(fd, at, spared[i].offset - at) < 0)
            return -1;
        at = spared[i].offset + spared[i].bytes;
    }
    if (at == bytes && spared_count)
        return set_size(fd, bytes);
    return allocate_range(fd, at, bytes - at);
}

static int allocate(int fd, const char *shown, uint64_t bytes, const struct file_range *spared,
                    size_t spared_count, struct error *err)
{
    uint64_t wanted = bytes;

    if (bytes > INT64_MAX)
        return error_set(err, ERR_FAILED, "'%s' would have %" PRIu64 " bytes, no file can", shown,
                         bytes);
    for (size_t i = 0; i < spared_count; i++)
        wanted -= spared[i].bytes;
    /* An allocation that cannot succeed would fill the disk, for others too, before it fails. */
    if (free_bytes(fd) < wanted)
        return no_space(fd, shown, wanted, err);
    if (allocate_rest(fd, bytes, spared, spared_count) == 0)
        return 0;
    if (errno == ENOSPC || errno == EDQUOT)
        return no_space(fd, shown, wanted, err);
    return error_set_errno(err, "cannot make '%s' %" PRIu64 " bytes long", shown, bytes);
}

int file_create_sparing(int directory_fd, const char *name, uint64_t bytes,
                        const struct file_range *spared, size_t spared_count, struct error *err)
{
    char shown[SHOWN_BYTES];
    int status;
    int fd;

    error_quote(shown, sizeof(shown), name, strlen(name));
    do {
        fd = openat(directory_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return error_set_errno(err, "cannot create '%s'", shown);
    status = allocate(fd, shown, bytes, spared, spared_count, err);
    close(fd);
    if (status)
        unlinkat(directory_fd, name, 0);
    return status;
}

int file_create_output(int directory_fd, const char *name, uint64_t bytes, struct error *err)
{
    return file_create_sparing(directory_fd, name, bytes, NULL, 0, err);
}

#include "io/file.h"

#include "base/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A sentence holds 1024 bytes; a longer path ends in "...". */
#define SHOWN_BYTES 512

static const char *show(char buf[SHOWN_BYTES], const char *path)
{
    return error_quote(buf, SHOWN_BYTES, path, strlen(path));
}

static int open_retry(int directory_fd, const char *name, int flags)
{
    int fd;

    do {
        fd = openat(directory_fd, name, flags | O_CLOEXEC | O_NOCTTY);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* The first link on the way along `path` that leads nowhere goes to `out`. */
static bool find_dangling_link(const char *path, char out[PATH_MAX])
{
    size_t bytes = strlen(path);
    struct stat st;

    for (size_t i = 1; i <= bytes && i < PATH_MAX; i++) {
        if (i < bytes && path[i] != '/')
            continue;
        memcpy(out, path, i);
        out[i] = '\0';
        if (stat(out, &st) == 0)
            continue;
        return lstat(out, &st) == 0 && S_ISLNK(st.st_mode);
    }
    return false;
}

static int open_failed(const char *path, struct error *err)
{
    int reason = errno;
    char link[PATH_MAX];
    char shown[SHOWN_BYTES];
    char shown_link[SHOWN_BYTES / 2];

    show(shown, path);
    switch (reason) {
    case ELOOP:
        return error_set(err, ERR_FORMAT, "'%s' cannot be opened: its links lead in a loop", shown);
    case ENXIO:
        return error_set(err, ERR_FORMAT, "'%s' is not a regular file", shown);
    case ENAMETOOLONG:
        return error_set(err, ERR_USAGE, "the path '%s' of %zu bytes is too long", shown,
                         strlen(path));
    case ENOENT:
    case ENOTDIR:
        if (!find_dangling_link(path, link))
            return error_set(err, ERR_USAGE, "'%s' does not exist", shown);
        if (!strcmp(link, path))
            return error_set(err, ERR_FORMAT, "'%s' is a link to a file that does not exist",
                             shown);
        error_quote(shown_link, sizeof(shown_link), link, strlen(link));
        return error_set(err, ERR_FORMAT, "'%s' does not exist: '%s' is a link that leads nowhere",
                         shown, shown_link);
    default:
        errno = reason;
        return error_set_errno(err, "cannot open '%s'", shown);
    }
}

static const char *kind_of(mode_t mode)
{
    if (S_ISDIR(mode))
        return "a directory";
    if (S_ISFIFO(mode))
        return "a pipe";
    if (S_ISSOCK(mode))
        return "a socket";
    return "a device";
}

static struct file_identity identity_of(const struct stat *st)
{
    return (struct file_identity){
        .device = st->st_dev,
        .inode = st->st_ino,
        .bytes = (uint64_t)st->st_size,
        .mtime_seconds = st->st_mtim.tv_sec,
        .mtime_nanoseconds = st->st_mtim.tv_nsec,
        .ctime_seconds = st->st_ctim.tv_sec,
        .ctime_nanoseconds = st->st_ctim.tv_nsec,
    };
}

/*
 * Does what the kernel says about the file rule direct I/O out?  STATX_DIOALIGN (Linux 6.1) is
 * read from its place in the kernel's structure, because the C library's may lack the fields.
 */
static bool direct_is_ruled_out(int fd)
{
    enum { MASK, MEMORY_ALIGN = 0x98 / 4, OFFSET_ALIGN = 0x9c / 4, WORDS = 256 / 4 };
    const uint32_t statx_dioalign = 0x2000;
    uint32_t words[WORDS] = { 0 };
    struct statfs fs;

    /* A tmpfs accepts the flag since 6.6 but holds its files in the page cache all the same. */
    if (fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC)
        return true;
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, statx_dioalign, words) != 0)
        return false;
    if (!(words[MASK] & statx_dioalign))
        return false;
    return words[MEMORY_ALIGN] == 0 || words[MEMORY_ALIGN] > PAGE_BYTES ||
           words[OFFSET_ALIGN] == 0 || words[OFFSET_ALIGN] > PAGE_BYTES;
}

/*
 * Try one page.  An output gets back what was read from it, so the probe changes nothing; one
 * shorter than a page is only read, because a write would lengthen it.
 */
static bool direct_works(int fd, bool output)
{
    void *page = NULL;
    ssize_t count;

    if (posix_memalign(&page, PAGE_BYTES, PAGE_BYTES))
        return false;
    do {
        count = pread(fd, page, PAGE_BYTES, 0);
    } while (count < 0 && errno == EINTR);
    if (output && count == (ssize_t)PAGE_BYTES) {
        do {
            count = pwrite(fd, page, PAGE_BYTES, 0);
        } while (count < 0 && errno == EINTR);
    }
    free(page);
    return count >= 0;
}

/*
 * Decide about direct I/O for a file that was opened with O_NONBLOCK and without O_DIRECT.  The
 * flags are changed on the descriptor: opening the path a second time could open another file.
 * O_NONBLOCK goes, because older kernels answer io_uring reads of such files with EAGAIN.
 */
static int set_direct(struct file *file, enum file_direct direct, bool output, const char *shown,
                      struct error *err)
{
    int flags = fcntl(file->fd, F_GETFL);

    if (flags < 0)
        return error_set_errno(err, "cannot use '%s'", shown);
    flags &= ~(O_NONBLOCK | O_DIRECT);
    if (direct != FILE_DIRECT_OFF && !direct_is_ruled_out(file->fd) &&
        fcntl(file->fd, F_SETFL, flags | O_DIRECT) == 0 && direct_works(file->fd, output)) {
        file->direct = true;
        return 0;
    }
    if (direct == FILE_DIRECT_ON)
        return error_set(err, ERR_FAILED, "direct i/o does not work on the file system of '%s'",
                         shown);
    if (fcntl(file->fd, F_SETFL, flags) < 0)
        return error_set_errno(err, "cannot use '%s'", shown);
    return 0;
}

/* `fd` was just opened; it is closed on failure. */
static int file_init(struct file *out, int fd, enum file_direct direct, bool output,
                     const char *shown, struct error *err)
{
    struct file file = { .fd = fd };
    struct stat st;
    int status = 0;

    if (fstat(fd, &st) < 0)
        status = error_set_errno(err, "cannot stat '%s'", shown);
    else if (!S_ISREG(st.st_mode))
        status = error_set(err, ERR_FORMAT, "'%s' is not a regular file but %s", shown,
                           kind_of(st.st_mode));
    else
        status = set_direct(&file, direct, output, shown, err);
    if (status) {
        close(fd);
        return status;
    }
    file.identity = identity_of(&st);
    *out = file;
    return 0;
}

int file_open_input(struct file *out, const char *path, enum file_direct direct, struct error *err)
{
    char shown[SHOWN_BYTES];
    int fd = open_retry(AT_FDCWD, path, O_RDONLY | O_NONBLOCK);

    if (fd < 0)
        return open_failed(path, err);
    return file_init(out, fd, direct, false, show(shown, path), err);
}

int file_open_output(struct file *out, int directory_fd, const char *name, enum file_direct direct,
                     struct error *err)
{
    char shown[SHOWN_BYTES];
    int fd = open_retry(directory_fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK);

    show(shown, name);
    if (fd < 0)
        return error_set_errno(err, "cannot open '%s' for writing", shown);
    return file_init(out, fd, direct, true, shown, err);
}

int file_check_unchanged(const char *path, const struct file_identity *then, struct error *err)
{
    char shown[SHOWN_BYTES];
    struct file_identity now;
    struct stat st;

    show(shown, path);
    if (stat(path, &st) < 0)
        return error_set_errno(err, "'%s' cannot be checked again after it was read", shown);
    now = identity_of(&st);
    if (now.device != then->device || now.inode != then->inode)
        return error_set(err, ERR_FAILED, "'%s' was replaced while it was read", shown);
    if (now.bytes != then->bytes)
        return error_set(err, ERR_FAILED,
                         "'%s' changed while it was read: it had %" PRIu64 " bytes, now %" PRIu64,
                         shown, then->bytes, now.bytes);
    if (now.mtime_seconds != then->mtime_seconds ||
        now.mtime_nanoseconds != then->mtime_nanoseconds ||
        now.ctime_seconds != then->ctime_seconds ||
        now.ctime_nanoseconds != then->ctime_nanoseconds)
        return error_set(err, ERR_FAILED, "'%s' was written or changed while it was read", shown);
    return 0;
}

void file_close(struct file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    *file = FILE_CLOSED;
}

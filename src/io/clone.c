#include "io/clone.h"

#include "base/bytes.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

/* One call cannot be interrupted, and takes as long as the range has extents. */
#define PIECE_BYTES GIB

int clone_range(int from_fd, uint64_t from_offset, int to_fd, uint64_t to_offset, uint64_t bytes,
                const atomic_int *cancelled)
{
    uint64_t done = 0;

    while (done < bytes) {
        struct file_clone_range piece = { .src_fd = from_fd,
                                          .src_offset = from_offset + done,
                                          .src_length = min_u64(PIECE_BYTES, bytes - done),
                                          .dest_offset = to_offset + done };

        if (atomic_load(cancelled))
            return ECANCELED;
        if (ioctl(to_fd, FICLONERANGE, &piece) == 0)
            done += piece.src_length;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

bool clone_is_refused(int status)
{
    switch (status) {
    case EOPNOTSUPP: /* the file system does not share extents */
    case ENOTTY:     /* nor knows the call */
    case ENOSYS:     /* nor does the sandbox */
    case EXDEV:      /* two file systems */
    case EINVAL:     /* its blocks are larger than pages, or one of the files has no checksums */
    case EPERM:
    case EACCES:
    case ETXTBSY: /* a swap file */
        return true;
    default:
        return false;
    }
}

/* push_check.c - is a file still what was to be written? */
#include "push_internal.h"

#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int push_open_file(const struct push *push, const struct push_file *file, int *fd,
                   struct error *err)
{
    *fd = -1;
    /* It may be moved between the two: then the first place is asked once more. */
    for (int i = 0; i < 3 && *fd < 0; i++) {
        int directory = push->directories[i % 2];

        if (directory < 0)
            continue;
        *fd = openat(directory, file->name, O_RDONLY | O_CLOEXEC);
        if (*fd < 0 && errno != ENOENT)
            break;
    }
    return *fd < 0 ? error_set_errno(err, "'%s' cannot be opened to be pushed", file->name) : 0;
}

static bool is_same(struct digest x, struct digest y)
{
    return x.half[0] == y.half[0] && x.half[1] == y.half[1];
}

static int check_blocks(struct push *push, const struct push_file *file, const struct file *opened,
                        struct error *err)
{
    uint64_t count = (file->bytes + PLAN_BLOCK_BYTES - 1) / PLAN_BLOCK_BYTES;

    if (opened->identity.bytes != file->bytes)
        return error_set(err, ERR_DIFFERENT, "'%s' has %" PRIu64 " bytes and should have %" PRIu64,
                         file->name, opened->identity.bytes, file->bytes);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t offset = i * PLAN_BLOCK_BYTES;
        size_t bytes = min_u64(PLAN_BLOCK_BYTES, file->bytes - offset);
        ssize_t got;

        if (is_same(file->blocks[i], (struct digest){ 0 }))
            continue; /* a piece of the base that was cloned */
        if (push_is_given_up(push))
            return error_set(err, ERR_CANCELLED, "cancelled");
        got = verify_read(opened, push->buffer, bytes, offset);
        if (got < 0)
            return error_set_errno(err, "cannot read '%s' at %" PRIu64, file->name, offset);
        if (!opened->direct)
            file_drop_cache(opened, offset, bytes);
        if ((size_t)got < bytes || !is_same(digest_bytes(push->buffer, bytes), file->blocks[i]))
            return error_set(err, ERR_DIFFERENT,
                             "'%s' is not what was written: it differs in block %" PRIu64
                             " (bytes %" PRIu64 " to %" PRIu64 ")",
                             file->name, i, offset, offset + bytes - 1);
    }
    return 0;
}

int push_check(struct push *push, const struct push_file *file, struct error *err)
{
    struct file opened = FILE_CLOSED;
    char path[64];
    int fd;
    int status;

    if (!file->blocks)
        return 0;
    if (push_open_file(push, file, &fd, err))
        return err->code;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    status = file_open_input(&opened, path, FILE_DIRECT_AUTO, err);
    if (!status)
        status = check_blocks(push, file, &opened, err);
    file_close(&opened);
    close(fd);
    if (status == ERR_DIFFERENT && file->may_differ) {
        log_say(&push->own_log, LOG_NOTICE, "%s; it is pushed as it is", err->text);
        *err = (struct error){ 0 };
        return 0;
    }
    return status;
}

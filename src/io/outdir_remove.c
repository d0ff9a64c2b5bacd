#include "io/outdir_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <string.h>
#include <unistd.h>

/* Each level of a removal holds an open directory. */
#define LEVELS_MAX 128

int outdir_each_entry(int directory_fd, int (*visit)(void *context, const char *name),
                      void *context, const char *shown, struct error *err)
{
    /* A descriptor of its own, because the position is shared between copies of one. */
    int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int status = 0;

    if (!stream) {
        status = error_set_errno(err, "cannot list '%s'", shown);
        if (fd >= 0)
            close(fd);
        return status;
    }
    for (;;) {
        errno = 0;
        entry = readdir(stream);
        if (!entry)
            break;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        status = visit(context, entry->d_name);
        if (status)
            goto out;
    }
    if (errno)
        status = error_set_errno(err, "cannot list '%s'", shown);
out:
    closedir(stream);
    return status;
}

bool outdir_is_mount_point(int parent_fd, int fd)
{
    struct statx stx;
    struct stat parent, own;

    /* A bind mount may be of the same file system, so the device alone does not tell. */
    if (statx(fd, "", AT_EMPTY_PATH, 0, &stx) == 0 &&
        (stx.stx_attributes & stx.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT))
        return true;
    return fstat(parent_fd, &parent) == 0 && fstat(fd, &own) == 0 && parent.st_dev != own.st_dev;
}

struct walk {
    int fd;
    const char *keep;
    const char *shown;
    size_t removed;
    int level;
    bool remove;                        /* or only look for mount points... */
    const struct outdir_inputs *inputs; /* ...and for these, or NULL */
    struct error *err;
};

static int walk_directory(struct walk *walk);

static int walk_failed(const struct walk *walk, const char *what, const char *name)
{
    int reason = errno;
    char quoted[QUOTED_BYTES];

    error_quote(quoted, sizeof(quoted), name, strlen(name));
    errno = reason;
    return error_set_errno(walk->err, "cannot %s '%s' in '%s'", what, quoted, walk->shown);
}

static int check_no_input(const struct walk *walk)
{
    size_t count = walk->inputs ? walk->inputs->count : 0;
    char quoted[QUOTED_BYTES];
    struct stat st;

    if (count && fstat(walk->fd, &st) < 0)
        return error_set_errno(walk->err, "cannot stat a directory in '%s'", walk->shown);
    for (size_t i = 0; i < count; i++) {
        const struct outdir_input *input = &walk->inputs->list[i];

        if (input->device != st.st_dev || input->inode != st.st_ino)
            continue;
        error_quote(quoted, sizeof(quoted), input->path, strlen(input->path));
        return error_set(walk->err, ERR_USAGE,
                         "'%s', which would be removed, holds the input '%s'; choose another "
                         "output",
                         walk->shown, quoted);
    }
    return 0;
}

static int walk_subdirectory(struct walk *walk, const char *name)
{
    struct walk below = { .shown = walk->shown,
                          .level = walk->level + 1,
                          .remove = walk->remove,
                          .inputs = walk->inputs,
                          .err = walk->err };
    char quoted[QUOTED_BYTES];
    int status = 0;

    if (below.level > LEVELS_MAX)
        return error_set(walk->err, ERR_USAGE, "directories in '%s' are nested more than %d deep",
                         walk->shown, LEVELS_MAX);
    below.fd = openat(walk->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (below.fd < 0)
        return errno == ENOENT ? 0 : walk_failed(walk, "open", name);
    if (outdir_is_mount_point(walk->fd, below.fd)) {
        error_quote(quoted, sizeof(quoted), name, strlen(name));
        status = error_set(walk->err, ERR_USAGE,
                           "'%s' in '%s' is a mount point, which is never removed; unmount it",
                           quoted, walk->shown);
    } else {
        status = check_no_input(&below);
        if (status == 0)
            status = walk_directory(&below);
    }
    close(below.fd);
    return status;
}

static int visit(void *context, const char *name)
{
    struct walk *walk = context;
    bool is_directory;
    struct stat st;
    int status;

    if (walk->keep && !strcmp(name, walk->keep))
        return 0;
    if (fstatat(walk->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : walk_failed(walk, "stat", name);
    is_directory = S_ISDIR(st.st_mode);
    if (is_directory) {
        status = walk_subdirectory(walk, name);
        if (status)
            return status;
    }
    if (!walk->remove)
        return 0;
    if (unlinkat(walk->fd, name, is_directory ? AT_REMOVEDIR : 0) == 0)
        walk->removed++;
    else if (errno != ENOENT)
        return walk_failed(walk, "remove", name);
    return 0;
}

static int walk_directory(struct walk *walk)
{
    int status;

    /* Some file systems skip entries while others are removed, so look again until none is left. */
    do {
        walk->removed = 0;
        status = outdir_each_entry(walk->fd, visit, walk, walk->shown, walk->err);
    } while (status == 0 && walk->removed);
    return status;
}

int outdir_remove_contents(int directory_fd, const char *keep, const char *shown, struct error *err)
{
    struct walk walk = {
        .fd = directory_fd, .keep = keep, .shown = shown, .remove = true, .err = err
    };

    return walk_directory(&walk);
}

int outdir_check_below(int directory_fd, const struct outdir_inputs *inputs, const char *shown,
                       struct error *err)
{
    struct walk walk = { .fd = directory_fd, .shown = shown, .inputs = inputs, .err = err };

    return walk_directory(&walk);
}

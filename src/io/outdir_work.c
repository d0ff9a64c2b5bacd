#include "io/outdir_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* Each try is lost to another process that made or removed the directory at that moment. */
#define TRIES_MAX 1000

/* outdir_each_entry() passes it on: stop, something was found. */
#define FOUND (-1)

static int found_entry(void *context, const char *name)
{
    (void)context;
    return strcmp(name, OUTDIR_MARKER) != 0 ? FOUND : 0;
}

bool outdir_still_names(int parent_fd, const char *name, int fd)
{
    struct stat named, open;

    return fstatat(parent_fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &open) == 0 &&
           named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

/* Of an open directory.  `*has_files`: something besides the marker is in it. */
static int look_inside(enum outdir_state *out, bool *has_files, int fd, const char *shown,
                       struct error *err)
{
    int status = outdir_each_entry(fd, found_entry, NULL, shown, err);
    struct stat st;

    if (status != 0 && status != FOUND)
        return status;
    *has_files = status == FOUND;
    /* After the listing: a marker is made before anything else. */
    if (fstatat(fd, OUTDIR_MARKER, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        st.st_size == 0)
        *out = OUTDIR_MARKED;
    else
        *out = *has_files ? OUTDIR_FOREIGN : OUTDIR_EMPTY;
    return 0;
}

int outdir_state_of(enum outdir_state *out, int parent_fd, const char *name, const char *shown,
                    struct error *err)
{
    bool has_files;
    int status;
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) {
        *out = OUTDIR_ABSENT;
        return 0;
    }
    if (fd < 0 && (errno == ENOTDIR || errno == ELOOP)) {
        *out = OUTDIR_NO_DIRECTORY;
        return 0;
    }
    if (fd < 0)
        return error_set_errno(err, "cannot open '%s'", shown);
    status = look_inside(out, &has_files, fd, shown, err);
    close(fd);
    return status;
}

int outdir_not_ours(enum outdir_state state, const char *shown, struct error *err)
{
    if (state == OUTDIR_NO_DIRECTORY)
        return error_set(err, ERR_USAGE, "'%s' is in the way and is not a directory; move it away",
                         shown);
    return error_set(err, ERR_USAGE,
                     "'%s' is in the way: it was not left by an unfinished run (it may be what an "
                     "interrupted overwrite replaced); move it away",
                     shown);
}

static int busy(const char *shown, struct error *err)
{
    return error_set(err, ERR_USAGE,
                     "another process is writing '%s'; wait for it or choose another output",
                     shown);
}

static int cannot_make(const char *shown, struct error *err)
{
    bool refused = errno == ENAMETOOLONG || errno == EROFS || errno == EACCES || errno == EPERM;

    error_set_errno(err, "cannot make the directory '%s'", shown);
    if (refused)
        err->code = ERR_USAGE;
    return err->code;
}

/* `*made`: it was not there.  `*lost`: it, or the directory, went away meanwhile. */
static int open_marker(struct outdir_work *work, bool *made, bool *lost, const char *shown,
                       struct error *err)
{
    const int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;

    *made = true;
    work->lock_fd = openat(work->fd, OUTDIR_MARKER, flags | O_CREAT | O_EXCL, 0666);
    if (work->lock_fd < 0 && errno == EEXIST) {
        *made = false;
        work->lock_fd = openat(work->fd, OUTDIR_MARKER, flags);
    }
    if (work->lock_fd >= 0)
        return 0;
    *lost = errno == ENOENT;
    return *lost ? 0 : error_set_errno(err, "cannot lock '%s'", shown);
}

enum lock_result { LOCK_HELD, LOCK_BUSY, LOCK_REFUSED };

static enum lock_result lock(int fd)
{
    if (outdir_hooks.no_lock)
        return LOCK_REFUSED;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return LOCK_BUSY;
        if (errno != EINTR)
            return LOCK_REFUSED;
    }
    return LOCK_HELD;
}

/*
 * The directory is locked and ours: what a process that ended left in it goes.  Where the file
 * system has no locks, only a directory that was made just now is known to be nobody else's.
 */
static int take_over(struct outdir_work *work, bool made_directory, enum lock_result locked,
                     const char *shown, const struct log *log, struct error *err)
{
    enum outdir_state state;
    bool has_files;
    int status;

    if (locked == LOCK_REFUSED && !made_directory)
        return error_set(err, ERR_USAGE,
                         "'%s' exists, and its file system has no locks to tell whether it is in "
                         "use; remove it if no other process is writing it",
                         shown);
    status = look_inside(&state, &has_files, work->fd, shown, err);
    if (status || !has_files)
        return status;
    status = outdir_remove_contents(work->fd, OUTDIR_MARKER, shown, err);
    if (status == 0)
        log_say(log, LOG_NOTICE, "removed '%s', which an unfinished run had left", shown);
    return status;
}

/* The directory exists; `*lost` as below. */
static int open_and_lock(struct outdir_work *work, int parent_fd, const char *name,
                         bool made_directory, const char *shown, const struct log *log, bool *lost,
                         struct error *err)
{
    bool made_marker = false;
    bool has_files;
    enum lock_result locked;
    enum outdir_state state;
    int status;

    work->fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (work->fd < 0) {
        if (errno == ENOTDIR || errno == ELOOP)
            return outdir_not_ours(OUTDIR_NO_DIRECTORY, shown, err);
        *lost = errno == ENOENT;
        return *lost ? 0 : error_set_errno(err, "cannot open '%s'", shown);
    }
    status = look_inside(&state, &has_files, work->fd, shown, err);
    if (status)
        return status;
    if (state == OUTDIR_FOREIGN) {
        *lost = !outdir_still_names(parent_fd, name, work->fd);
        return *lost ? 0 : outdir_not_ours(state, shown, err);
    }
    status = open_marker(work, &made_marker, lost, shown, err);
    if (status || *lost)
        return status;
    locked = lock(work->lock_fd);

    /* The owner before us may have put the directory in place or removed it before we locked. */
    if (!outdir_still_names(work->fd, OUTDIR_MARKER, work->lock_fd)) {
        *lost = true;
        return 0;
    }
    if (!outdir_still_names(parent_fd, name, work->fd)) {
        if (made_marker)
            unlinkat(work->fd, OUTDIR_MARKER, 0);
        *lost = true;
        return 0;
    }
    if (locked == LOCK_BUSY)
        return busy(shown, err);
    status = take_over(work, made_directory, locked, shown, log, err);
    if (status && made_marker)
        unlinkat(work->fd, OUTDIR_MARKER, 0);
    return status;
}

/* One try; `*lost` if another process made or removed the directory meanwhile. */
static int acquire_once(struct outdir_work *work, int parent_fd, const char *name,
                        const char *shown, const struct log *log, bool *lost, struct error *err)
{
    bool made_directory = mkdirat(parent_fd, name, 0777) == 0;
    int status;

    if (!made_directory && errno != EEXIST)
        return cannot_make(shown, err);
    if (made_directory)
        outdir_reach(OUTDIR_STEP_MADE);
    status = open_and_lock(work, parent_fd, name, made_directory, shown, log, lost, err);
    if (status && made_directory)
        unlinkat(parent_fd, name, AT_REMOVEDIR); /* fails if another process has begun in it */
    return status;
}

int outdir_work_acquire(struct outdir_work *work, int parent_fd, const char *name,
                        const char *shown, const struct log *log, struct error *err)
{
    for (int i = 0; i < TRIES_MAX; i++) {
        bool lost = false;
        int status;

        *work = OUTDIR_NO_WORK;
        status = acquire_once(work, parent_fd, name, shown, log, &lost, err);
        if (status == 0 && !lost) {
            outdir_reach(OUTDIR_STEP_LOCKED);
            return 0;
        }
        outdir_work_close(work);
        if (status)
            return status;
    }
    return error_set(err, ERR_FAILED, "'%s' is made and removed by other processes all the time",
                     shown);
}

void outdir_work_close(struct outdir_work *work)
{
    if (work->lock_fd >= 0)
        close(work->lock_fd);
    if (work->fd >= 0)
        close(work->fd);
    *work = OUTDIR_NO_WORK;
}

int outdir_work_remove(struct outdir_work *work, int parent_fd, const char *name, const char *shown,
                       struct error *err)
{
    int status = outdir_remove_contents(work->fd, OUTDIR_MARKER, shown, err);

    if (status == 0 && outdir_still_names(parent_fd, name, work->fd)) {
        /* From here another process may take the directory over; then it is not empty. */
        unlinkat(work->fd, OUTDIR_MARKER, 0);
        if (unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT && errno != ENOTEMPTY &&
            errno != EEXIST)
            status = error_set_errno(err, "cannot remove '%s'", shown);
    }
    outdir_work_close(work);
    return status;
}

int outdir_doom(int directory_fd, int parent_fd, const char *name, const char *shown,
                struct error *err)
{
    struct outdir_work work = { .fd = directory_fd, .lock_fd = -1 };
    bool made, lost = false;
    int status = open_marker(&work, &made, &lost, shown, err);

    outdir_reach(OUTDIR_STEP_DOOMED);
    /* If it is locked, another process has found it marked, and removes it. */
    if (status || lost || lock(work.lock_fd) == LOCK_BUSY) {
        outdir_work_close(&work);
        return status;
    }
    return outdir_work_remove(&work, parent_fd, name, shown, err);
}

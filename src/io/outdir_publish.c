#include "io/outdir_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int outdir_sync(int directory_fd, const char *shown, struct error *err)
{
    while (fsync(directory_fd) < 0) {
        /* A descriptor of O_PATH, or a file system that has no sync of directories. */
        if (errno == EBADF || errno == EINVAL || errno == EOPNOTSUPP)
            return 0;
        if (errno != EINTR)
            return error_set_errno(err, "cannot sync the directory '%s' to its storage", shown);
    }
    return 0;
}

int outdir_rename_new(int from_fd, const char *from, int to_fd, const char *to)
{
    struct stat st;

    if (renameat2(from_fd, from, to_fd, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
        return -1;
    /* The file system cannot do it in one step (NFS). */
    if (fstatat(to_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    return renameat(from_fd, from, to_fd, to);
}

static int sync_parent(const struct outdir *outdir, struct error *err)
{
    char shown[OUTDIR_SHOWN_BYTES];
    const char *path = outdir->place.parent_path;

    return outdir_sync(outdir->place.parent_fd,
                       error_quote(shown, sizeof(shown), path, strlen(path)), err);
}

static int cannot_place(const struct outdir *outdir, struct error *err)
{
    if (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR)
        return error_set(err, ERR_FAILED, "'%s' was made by somebody else during the work",
                         outdir->place.shown);
    return error_set_errno(err, "cannot put the output '%s' in place", outdir->place.shown);
}

static int publish_new(struct outdir *outdir, struct error *err)
{
    const struct outdir_place *place = &outdir->place;
    int status;

    if (outdir_rename_new(place->parent_fd, place->partial, place->parent_fd, place->name) < 0)
        return cannot_place(outdir, err);
    status = sync_parent(outdir, err);
    if (status)
        (void)outdir_rename_new(place->parent_fd, place->name, place->parent_fd, place->partial);
    else
        outdir_reach(OUTDIR_STEP_PLACED);
    return status;
}

static int exchange(const struct outdir_place *place)
{
    if (outdir_hooks.no_exchange) {
        errno = EINVAL;
        return -1;
    }
    return renameat2(place->parent_fd, place->partial, place->parent_fd, place->name,
                     RENAME_EXCHANGE);
}

/* OUT makes way and the work takes its name; a crash between is repaired by the next run. */
static int rename_twice(struct outdir *outdir, struct error *err)
{
    const struct outdir_place *place = &outdir->place;
    int reason;

    if (outdir_rename_new(place->parent_fd, place->name, place->parent_fd, place->old) < 0)
        return error_set_errno(err, "cannot move the old '%s' away", place->shown);
    outdir_reach(OUTDIR_STEP_OLD_MOVED);
    if (outdir_rename_new(place->parent_fd, place->partial, place->parent_fd, place->name) == 0)
        return 0;
    reason = errno;
    (void)outdir_rename_new(place->parent_fd, place->old, place->parent_fd, place->name);
    errno = reason;
    return cannot_place(outdir, err);
}

static int publish_replace(struct outdir *outdir, struct error *err)
{
    struct outdir_place *place = &outdir->place;
    const char *old = place->partial;
    char shown[OUTDIR_SHOWN_BYTES];
    struct error ignored = { 0 };
    int status;

    if (!outdir_still_names(place->parent_fd, place->name, place->out_fd))
        return error_set(err, ERR_FAILED, "'%s' was replaced by somebody else during the work",
                         place->shown);
    /* A marker left by a crash just after publishing would let the old directory be removed. */
    if (unlinkat(place->out_fd, OUTDIR_MARKER, 0) < 0 && errno != ENOENT)
        return error_set_errno(err, "cannot prepare '%s' to be replaced", place->shown);
    if (exchange(place) < 0) {
        if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
            return cannot_place(outdir, err);
        old = place->old;
        status = rename_twice(outdir, err);
        if (status)
            return status;
    }
    status = sync_parent(outdir, err);
    if (status) {
        if (old == place->partial) {
            (void)exchange(place);
        } else {
            (void)outdir_rename_new(place->parent_fd, place->name, place->parent_fd,
                                    place->partial);
            (void)outdir_rename_new(place->parent_fd, old, place->parent_fd, place->name);
        }
        return status;
    }
    outdir_reach(OUTDIR_STEP_PLACED);

    /* The new one stands; that the old one cannot be removed is no failure of the work. */
    outdir_show(shown, place, old);
    if (outdir_doom(place->out_fd, place->parent_fd, old, shown, &ignored))
        log_say(outdir->log, LOG_WARNING, "the old directory is left at '%s': %s", shown,
                ignored.text);
    place->out_fd = -1;
    return 0;
}

/* The names in the work directory: first the others, then those of `last` in their order. */
struct name_list {
    char **names;
    size_t count;
    size_t capacity;
    const char *const *last;
    size_t last_count;
};

static int add_name(struct name_list *list, const char *name)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 32;
        char **names = realloc(list->names, capacity * sizeof(*names));

        if (!names)
            return ERR_FAILED;
        list->names = names;
        list->capacity = capacity;
    }
    list->names[list->count] = strdup(name);
    if (!list->names[list->count])
        return ERR_FAILED;
    list->count++;
    return 0;
}

static int visit_name(void *context, const char *name)
{
    struct name_list *list = context;

    if (!strcmp(name, OUTDIR_MARKER))
        return 0;
    for (size_t i = 0; i < list->last_count; i++) {
        if (!strcmp(name, list->last[i]))
            return 0;
    }
    return add_name(list, name);
}

static void name_list_release(struct name_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->names[i]);
    free(list->names);
}

/* `*others`: how many names come before those that make the directory look finished. */
static int list_names(struct name_list *list, size_t *others, const struct outdir *outdir,
                      struct error *err)
{
    int status;

    *err = (struct error){ 0 };
    status = outdir_each_entry(outdir->work.fd, visit_name, list, outdir->work_shown, err);
    *others = list->count;
    for (size_t i = 0; status == 0 && i < list->last_count; i++) {
        struct stat st;

        if (fstatat(outdir->work.fd, list->last[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
            status = add_name(list, list->last[i]);
    }
    if (status && !err->code)
        status = error_no_memory(err, "the names of the output files");
    return status;
}

static int visit_found(void *context, const char *name)
{
    (void)context;
    return strcmp(name, OUTDIR_INSIDE_NAME) != 0 && strcmp(name, "lost+found") != 0 ? -1 : 0;
}

static int publish_inside(struct outdir *outdir, const char *const *last, size_t last_count,
                          struct error *err)
{
    struct name_list list = { .last = last, .last_count = last_count };
    const struct outdir_place *place = &outdir->place;
    int from = outdir->work.fd, to = place->out_fd;
    char quoted[QUOTED_BYTES];
    size_t others = 0, moved = 0;
    int status;

    status = outdir_each_entry(to, visit_found, NULL, place->shown, err);
    if (status == -1)
        return error_set(err, ERR_FAILED,
                         "'%s' was empty, but somebody else wrote to it during "
                         "the work",
                         place->shown);
    if (status == 0)
        status = list_names(&list, &others, outdir, err);
    for (; status == 0 && moved < list.count; moved++) {
        if (moved == others) {
            status = outdir_sync(to, place->shown, err);
            if (status)
                break;
            outdir_reach(OUTDIR_STEP_BEFORE_LAST);
        }
        if (outdir_rename_new(from, list.names[moved], to, list.names[moved]) < 0) {
            error_quote(quoted, sizeof(quoted), list.names[moved], strlen(list.names[moved]));
            status = error_set_errno(err, "cannot move '%s' into '%s'", quoted, place->shown);
            break;
        }
        if (moved == 0)
            outdir_reach(OUTDIR_STEP_MOVED_ONE);
    }
    if (status == 0)
        status = outdir_sync(to, place->shown, err);
    while (status && moved > 0) {
        moved--;
        (void)outdir_rename_new(to, list.names[moved], from, list.names[moved]);
    }
    name_list_release(&list);
    return status;
}

/* The directory is in place: what made it ours goes. */
static void finish(struct outdir *outdir)
{
    const struct outdir_place *place = &outdir->place;
    struct error err = { 0 };

    outdir->published = true;
    if (place->mode == OUTDIR_INSIDE) {
        if (outdir_work_remove(&outdir->work, place->out_fd, OUTDIR_INSIDE_NAME, outdir->work_shown,
                               &err))
            log_say(outdir->log, LOG_WARNING, "%s", err.text);
        (void)outdir_sync(place->out_fd, place->shown, &err);
        return;
    }
    if (unlinkat(outdir->work.fd, OUTDIR_MARKER, 0) < 0) {
        error_set_errno(&err, "'%s' is finished, but '%s' cannot be removed from it", place->shown,
                        OUTDIR_MARKER);
        log_say(outdir->log, LOG_WARNING, "%s", err.text);
        if (ftruncate(outdir->work.lock_fd, OUTDIR_SPENT_BYTES) < 0)
            log_say(outdir->log, LOG_WARNING, "remove it: a later run may take '%s' for a leftover",
                    place->shown);
    }
    (void)outdir_sync(outdir->work.fd, place->shown, &err);
    (void)sync_parent(outdir, &err);
    outdir_work_close(&outdir->work);
}

int outdir_publish(struct outdir *outdir, const char *const *last, size_t last_count,
                   struct error *err)
{
    int status;

    if (outdir->work.fd < 0)
        return error_set(err, ERR_FAILED, "the output '%s' was given up before",
                         outdir->place.shown);
    if (!outdir_still_names(outdir_work_parent(outdir), outdir_work_name(outdir), outdir->work.fd))
        return error_set(err, ERR_FAILED, "'%s' was moved or removed during the work",
                         outdir->work_shown);
    status = outdir_sync(outdir->work.fd, outdir->work_shown, err);
    if (status)
        return status;
    switch (outdir->place.mode) {
    case OUTDIR_NEW:
        status = publish_new(outdir, err);
        break;
    case OUTDIR_INSIDE:
        status = publish_inside(outdir, last, last_count, err);
        break;
    case OUTDIR_REPLACE:
        status = publish_replace(outdir, err);
        break;
    }
    if (status == 0)
        finish(outdir);
    return status;
}

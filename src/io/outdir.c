#include "io/outdir.h"

#include "io/file.h"
#include "io/outdir_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each try is lost to another process that published or removed something at that moment. */
#define TRIES_MAX 100

struct outdir_hooks outdir_hooks;

void outdir_reach(enum outdir_step step)
{
    if (outdir_hooks.step)
        outdir_hooks.step(step);
}

int outdir_work_parent(const struct outdir *outdir)
{
    return outdir->place.mode == OUTDIR_INSIDE ? outdir->place.out_fd : outdir->place.parent_fd;
}

const char *outdir_work_name(const struct outdir *outdir)
{
    return outdir->place.mode == OUTDIR_INSIDE ? OUTDIR_INSIDE_NAME : outdir->place.partial;
}

static bool same_place(const struct outdir_place *x, const struct outdir_place *y)
{
    struct stat of_x, of_y;

    if (x->mode != y->mode || x->restore != y->restore || (x->out_fd < 0) != (y->out_fd < 0))
        return false;
    if (fstat(x->parent_fd, &of_x) < 0 || fstat(y->parent_fd, &of_y) < 0 ||
        of_x.st_dev != of_y.st_dev || of_x.st_ino != of_y.st_ino)
        return false;
    if (x->out_fd < 0)
        return true;
    return fstat(x->out_fd, &of_x) == 0 && fstat(y->out_fd, &of_y) == 0 &&
           of_x.st_dev == of_y.st_dev && of_x.st_ino == of_y.st_ino;
}

/* An overwrite ended between its two renames: put back what stood at OUT. */
static int restore(struct outdir *outdir, struct error *err)
{
    const struct outdir_place *place = &outdir->place;
    char shown[OUTDIR_SHOWN_BYTES];

    outdir_show(shown, place, place->old);
    if (outdir_rename_new(place->parent_fd, place->old, place->parent_fd, place->name) < 0)
        return error_set_errno(err,
                               "cannot rename '%s' back to '%s' after an interrupted overwrite",
                               shown, place->shown);
    log_say(outdir->log, LOG_NOTICE,
            "renamed '%s' back to '%s', because its overwriting was interrupted", shown,
            place->shown);
    return 0;
}

/* Remove a marked directory that no process locks. */
static int remove_stale(const struct outdir *outdir, int parent_fd, const char *name,
                        struct error *err)
{
    struct outdir_work stale = OUTDIR_NO_WORK;
    char shown[OUTDIR_SHOWN_BYTES];
    enum outdir_state state;
    int status;

    outdir_show(shown, &outdir->place, name);
    status = outdir_state_of(&state, parent_fd, name, shown, err);
    if (status || state != OUTDIR_MARKED)
        return status;
    status = outdir_work_acquire(&stale, parent_fd, name, shown, outdir->log, err);
    if (status == 0)
        status = outdir_work_remove(&stale, parent_fd, name, shown, err);
    return status;
}

/* The lock is held and the place is still what it was: clear away what earlier runs left. */
static int clear_leftovers(const struct outdir *outdir, struct error *err)
{
    const struct outdir_place *place = &outdir->place;
    int status = 0;

    if (place->mode != OUTDIR_INSIDE)
        status = remove_stale(outdir, place->parent_fd, place->old, err);
    if (status == 0 && place->mode == OUTDIR_REPLACE)
        status = remove_stale(outdir, place->out_fd, OUTDIR_INSIDE_NAME, err);
    return status;
}

static void give_back(struct outdir *outdir)
{
    struct error ignored = { 0 };

    if (outdir->work.fd >= 0)
        (void)outdir_work_remove(&outdir->work, outdir_work_parent(outdir),
                                 outdir_work_name(outdir), outdir->work_shown, &ignored);
    outdir_place_release(&outdir->place);
}

/* Did another process put something else at OUT after it was opened here? */
static bool was_replaced(const struct outdir_place *place)
{
    return place->out_fd >= 0 && place->name[0] != '\0' &&
           !outdir_still_names(place->parent_fd, place->name, place->out_fd);
}

/* A failure is none if it tells of a directory that no longer stands at OUT. */
static int unless_replaced(int status, const struct outdir *self, bool *again, struct error *err)
{
    if (status == 0 || !was_replaced(&self->place))
        return status;
    *again = true;
    *err = (struct error){ 0 };
    return 0;
}

/* One try; `*again` if what the path means changed before it was locked, or was just repaired. */
static int open_once(struct outdir *self, const char *path, bool overwrite,
                     const char *const *inputs, size_t input_count, bool *again, struct error *err)
{
    struct outdir_place place = OUTDIR_NO_PLACE;
    char name[NAME_MAX + sizeof(OUTDIR_INSIDE_NAME) + 1]; /* of the work directory in the parent */
    int status;

    status = outdir_place_find(&self->place, path, overwrite, inputs, input_count, err);
    if (status)
        return unless_replaced(status, self, again, err);
    if (self->place.mode == OUTDIR_INSIDE)
        snprintf(name, sizeof(name), "%s/%s", self->place.name, OUTDIR_INSIDE_NAME);
    else
        memcpy(name, self->place.partial, sizeof(self->place.partial));
    outdir_show(self->work_shown, &self->place, name);
    status = outdir_work_acquire(&self->work, outdir_work_parent(self), outdir_work_name(self),
                                 self->work_shown, self->log, err);
    if (status)
        return unless_replaced(status, self, again, err);
    status = outdir_place_find(&place, path, overwrite, inputs, input_count, err);
    if (status == 0 && !same_place(&self->place, &place)) {
        *again = true;
    } else if (status == 0 && place.restore) {
        *again = true;
        status = restore(self, err);
    } else if (status == 0) {
        status = clear_leftovers(self, err);
    }
    outdir_place_release(&place);
    return status;
}

int outdir_open(struct outdir **out, const char *path, bool overwrite,
                const char *const *input_directories, size_t input_directory_count,
                const struct log *log, struct error *err)
{
    struct outdir *self = calloc(1, sizeof(*self));

    if (!self)
        return error_no_memory(err, "the output directory");
    self->log = log;
    self->place = OUTDIR_NO_PLACE;
    self->work = OUTDIR_NO_WORK;
    for (int i = 0; i < TRIES_MAX; i++) {
        bool again = false;
        int status = open_once(self, path, overwrite, input_directories, input_directory_count,
                               &again, err);

        if (status == 0 && !again) {
            *out = self;
            return 0;
        }
        give_back(self);
        if (status) {
            free(self);
            return status;
        }
    }
    free(self);
    return error_set(err, ERR_FAILED,
                     "the output directory is changed by other processes all the time");
}

int outdir_fd(const struct outdir *outdir)
{
    return outdir->work.fd;
}

int outdir_final_fd(const struct outdir *outdir)
{
    return outdir->place.mode == OUTDIR_INSIDE ? outdir->place.out_fd : -1;
}

int outdir_write_file(struct outdir *outdir, const char *name, const void *bytes, size_t count,
                      struct error *err)
{
    struct file file = FILE_CLOSED;
    char quoted[QUOTED_BYTES];
    int status;

    status = file_create_output(outdir->work.fd, name, count, err);
    if (status)
        return status;
    status = file_open_output(&file, outdir->work.fd, name, FILE_DIRECT_OFF, err);
    if (status)
        return status;
    status = file_pwrite(&file, bytes, count, 0, err);
    if (status == 0)
        status = file_sync(&file, err);
    file_close(&file);
    if (status)
        error_prefix(err, "'%s'", error_quote(quoted, sizeof(quoted), name, strlen(name)));
    return status;
}

void outdir_discard(struct outdir *outdir)
{
    struct error err = { 0 };

    if (outdir->published || outdir->work.fd < 0)
        return;
    if (outdir_work_remove(&outdir->work, outdir_work_parent(outdir), outdir_work_name(outdir),
                           outdir->work_shown, &err))
        log_say(outdir->log, LOG_WARNING, "the unfinished output is left: %s", err.text);
}

void outdir_close(struct outdir *outdir)
{
    if (!outdir)
        return;
    outdir_discard(outdir);
    outdir_work_close(&outdir->work);
    outdir_place_release(&outdir->place);
    free(outdir);
}

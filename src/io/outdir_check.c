#include "base/bytes.h"
#include "io/outdir_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct survey {
    int fd;
    bool has_lost_found;
    bool has_others;
    bool is_model;
};

static int survey_entry(void *context, const char *name)
{
    struct survey *survey = context;
    size_t bytes = strlen(name);
    struct stat st;

    if (fstatat(survey->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0; /* it went away */
    if (S_ISDIR(st.st_mode) && !strcmp(name, OUTDIR_INSIDE_NAME))
        return 0;
    if (S_ISDIR(st.st_mode) && !strcmp(name, "lost+found")) {
        survey->has_lost_found = true;
        return 0;
    }
    survey->has_others = true;
    if (!S_ISDIR(st.st_mode) && (!strcmp(name, "lorafold.json") || !strcmp(name, "config.json") ||
                                 (bytes > 12 && !strcmp(name + bytes - 12, ".safetensors"))))
        survey->is_model = true;
    return 0;
}

static int check_writable(int fd, const char *shown, struct error *err)
{
    if (faccessat(fd, ".", W_OK | X_OK, AT_EACCESS) == 0)
        return 0;
    if (errno == EROFS)
        return error_set(err, ERR_USAGE, "'%s' is on a read-only file system", shown);
    if (errno == EACCES)
        return error_set(err, ERR_USAGE, "'%s' is not writable for this user", shown);
    return error_set_errno(err, "cannot tell whether '%s' is writable", shown);
}

static int check_replaceable(const struct outdir_place *place, const char *const *inputs,
                             size_t input_count, struct error *err)
{
    struct outdir_inputs found = { 0 };
    char shown[OUTDIR_SHOWN_BYTES];
    enum outdir_state state;
    struct stat out;
    bool holds_current;
    int current;
    int status;

    current = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    holds_current = current >= 0 && fstat(place->out_fd, &out) == 0 &&
                    outdir_is_inside(current, &out);
    if (current >= 0)
        close(current);
    if (holds_current)
        return error_set(err, ERR_USAGE,
                         "'%s' is or holds the current directory, which is not replaced; change "
                         "to another directory first",
                         place->shown);
    status = outdir_inputs_find(&found, inputs, input_count, err);
    if (status == 0)
        status = outdir_check_below(place->out_fd, &found, place->shown, err);
    free(found.list);
    if (status)
        return status;
    outdir_show(shown, place, place->old);
    status = outdir_state_of(&state, place->parent_fd, place->old, shown, err);
    if (status == 0 && state != OUTDIR_ABSENT && state != OUTDIR_MARKED)
        status = error_set(err, ERR_USAGE,
                           "'%s' is what stood at '%s' before an interrupted overwrite; remove it, "
                           "or move it away, first",
                           shown, place->shown);
    return status;
}

static int judge_existing(struct outdir_place *place, bool overwrite, const char *const *inputs,
                          size_t input_count, struct error *err)
{
    bool mounted = outdir_is_mount_point(place->parent_fd, place->out_fd) || !place->name[0];
    struct survey survey = { .fd = place->out_fd };
    int status;

    status = outdir_each_entry(place->out_fd, survey_entry, &survey, place->shown, err);
    if (status)
        return status;
    if (survey.has_lost_found && !mounted)
        survey.has_others = true;
    if (!survey.has_others) {
        place->mode = OUTDIR_INSIDE;
        return check_writable(place->out_fd, place->shown, err);
    }
    if (mounted)
        return error_set(err, ERR_USAGE,
                         "'%s' is a mount point and is not empty, so it cannot be replaced in one "
                         "step; empty it or choose a directory in it",
                         place->shown);
    if (!overwrite)
        return error_set(err, ERR_USAGE,
                         "'%s' exists and is not empty; choose another directory, or --overwrite "
                         "to replace it",
                         place->shown);
    if (!survey.is_model)
        return error_set(err, ERR_USAGE,
                         "'%s' is not overwritten, because it does not look like a model: there is "
                         "no lorafold.json, config.json or .safetensors file in it",
                         place->shown);
    place->mode = OUTDIR_REPLACE;
    return check_replaceable(place, inputs, input_count, err);
}

int outdir_place_find(struct outdir_place *place, const char *path, bool overwrite,
                      const char *const *inputs, size_t input_count, struct error *err)
{
    char shown[OUTDIR_SHOWN_BYTES];
    enum outdir_state state = OUTDIR_ABSENT;
    int status;

    *place = OUTDIR_NO_PLACE;
    status = outdir_place_resolve(place, path, err);
    if (status == 0)
        status = outdir_place_check_inputs(place, inputs, input_count, err);
    if (status)
        return status;
    if (place->out_fd >= 0) {
        status = judge_existing(place, overwrite, inputs, input_count, err);
    } else {
        place->mode = OUTDIR_NEW;
        outdir_show(shown, place, place->old);
        status = outdir_state_of(&state, place->parent_fd, place->old, shown, err);
        place->restore = state == OUTDIR_FOREIGN || state == OUTDIR_EMPTY;
    }
    if (status || place->mode == OUTDIR_INSIDE)
        return status;
    error_quote(shown, sizeof(shown), place->parent_path, strlen(place->parent_path));
    return check_writable(place->parent_fd, shown, err);
}

int outdir_check(const char *path, bool overwrite, const char *const *input_directories,
                 size_t input_directory_count, struct error *err)
{
    struct outdir_place place = OUTDIR_NO_PLACE;
    char shown[OUTDIR_SHOWN_BYTES];
    enum outdir_state state = OUTDIR_ABSENT;
    int status;

    status = outdir_place_find(&place, path, overwrite, input_directories, input_directory_count,
                               err);
    if (status)
        goto out;
    if (place.restore && !overwrite) {
        status = error_set(err, ERR_USAGE,
                           "'%s' is missing because its overwriting was interrupted; what it held "
                           "is in '%s': rename that back, or --overwrite to replace it",
                           place.shown, outdir_show(shown, &place, place.old));
        goto out;
    }
    if (place.mode == OUTDIR_INSIDE) {
        status = outdir_state_of(&state, place.out_fd, OUTDIR_INSIDE_NAME, place.shown, err);
        error_quote(shown, sizeof(shown), OUTDIR_INSIDE_NAME, strlen(OUTDIR_INSIDE_NAME));
    } else {
        outdir_show(shown, &place, place.partial);
        status = outdir_state_of(&state, place.parent_fd, place.partial, shown, err);
    }
    if (status == 0 && (state == OUTDIR_FOREIGN || state == OUTDIR_NO_DIRECTORY))
        status = outdir_not_ours(state, shown, err);
out:
    outdir_place_release(&place);
    return status;
}

int outdir_free_bytes(const char *path, uint64_t *out, struct error *err)
{
    struct outdir_place place = OUTDIR_NO_PLACE;
    struct statvfs vfs;
    uint64_t bytes;
    int status;

    status = outdir_place_resolve(&place, path, err);
    if (status)
        goto out;
    if (fstatvfs(place.out_fd >= 0 ? place.out_fd : place.parent_fd, &vfs) < 0)
        status = error_set_errno(err, "cannot tell the free space for '%s'", place.shown);
    else
        *out = vfs.f_blocks && mul_u64(vfs.f_bavail, vfs.f_frsize, &bytes) ? bytes : UINT64_MAX;
out:
    outdir_place_release(&place);
    return status;
}

int outdir_open_unnamed(int *fd, const char *path, struct error *err)
{
    struct outdir_place place = OUTDIR_NO_PLACE;
    int opened = -1;
    int status;

    status = outdir_place_resolve(&place, path, err);
    if (status)
        goto out;
    opened = openat(place.out_fd >= 0 ? place.out_fd : place.parent_fd, ".",
                    O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (opened < 0)
        status = error_set_errno(err, "no file without a name can be made for '%s'", place.shown);
    else
        *fd = opened;
out:
    outdir_place_release(&place);
    return status;
}

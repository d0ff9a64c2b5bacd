#include "io/outdir_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool same(const struct stat *x, const struct stat *y)
{
    return x->st_dev == y->st_dev && x->st_ino == y->st_ino;
}

/* Upwards by "..", so no link on the way counts; the root directory is its own parent. */
bool outdir_is_inside(int fd, const struct stat *directory)
{
    int here = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool found = false;
    struct stat st, above;

    while (here >= 0 && fstat(here, &st) == 0) {
        int next;

        found = same(&st, directory);
        if (found)
            break;
        next = openat(here, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(here);
        here = next;
        if (here >= 0 && (fstat(here, &above) < 0 || same(&above, &st)))
            break;
    }
    if (here >= 0)
        close(here);
    return found;
}

/* An input that is a file stands in the directory that it really is in. */
static int open_directory_of(const char *input, const char *shown, struct error *err)
{
    char *real = realpath(input, NULL);
    char *slash = real ? strrchr(real, '/') : NULL;
    int fd = -1;

    if (slash) {
        slash[slash == real] = '\0';
        fd = open(real, O_PATH | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0)
        error_set_errno(err, "cannot open the directory of the input '%s'", shown);
    free(real);
    return fd;
}

/* Would writing or removing the directory `name` touch the input? */
static int check_above(int input_fd, const char *shown_input, int parent_fd, const char *name,
                       const char *shown, struct error *err)
{
    struct stat st;

    if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode) ||
        !outdir_is_inside(input_fd, &st))
        return 0;
    return error_set(err, ERR_USAGE,
                     "'%s', which would be written or removed, is or holds the input '%s'; choose "
                     "another output",
                     shown, shown_input);
}

static int check_input(const struct outdir_place *place, const char *input, struct error *err)
{
    int fd = open(input, O_PATH | O_CLOEXEC);
    char shown_input[OUTDIR_SHOWN_BYTES];
    char shown[OUTDIR_SHOWN_BYTES];
    struct stat st;
    int status = 0;

    error_quote(shown_input, sizeof(shown_input), input, strlen(input));
    if (fd < 0 || fstat(fd, &st) < 0) {
        status = error_set_errno(err, "cannot open the input '%s'", shown_input);
        goto out;
    }
    if (S_ISDIR(st.st_mode)) {
        if (outdir_is_inside(place->out_fd >= 0 ? place->out_fd : place->parent_fd, &st)) {
            status = error_set(err, ERR_USAGE,
                               "the output '%s' is or lies in the input '%s'; choose another "
                               "output",
                               place->shown, shown_input);
            goto out;
        }
    } else {
        close(fd);
        fd = open_directory_of(input, shown_input, err);
        if (fd < 0) {
            status = err->code;
            goto out;
        }
    }
    if (place->out_fd >= 0)
        status = check_above(fd, shown_input, place->out_fd, ".", place->shown, err);
    if (status == 0 && place->partial[0])
        status = check_above(fd, shown_input, place->parent_fd, place->partial,
                             outdir_show(shown, place, place->partial), err);
    if (status == 0 && place->old[0])
        status = check_above(fd, shown_input, place->parent_fd, place->old,
                             outdir_show(shown, place, place->old), err);
out:
    if (fd >= 0)
        close(fd);
    return status;
}

int outdir_place_check_inputs(const struct outdir_place *place, const char *const *inputs,
                              size_t input_count, struct error *err)
{
    for (size_t i = 0; i < input_count; i++) {
        int status = check_input(place, inputs[i], err);

        if (status)
            return status;
    }
    return 0;
}

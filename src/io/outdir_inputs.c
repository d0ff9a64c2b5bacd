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

/* The directory that an input is or stands in, as a path descriptor; -1 with the reason set. */
static int open_input(bool *is_directory, const char *input, const char *shown, struct error *err)
{
    int fd = open(input, O_PATH | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        error_set_errno(err, "cannot open the input '%s'", shown);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *is_directory = S_ISDIR(st.st_mode);
    if (*is_directory)
        return fd;
    close(fd);
    return open_directory_of(input, shown, err);
}

static int check_input(const struct outdir_place *place, const char *input, struct error *err)
{
    char shown_input[OUTDIR_SHOWN_BYTES];
    char shown[OUTDIR_SHOWN_BYTES];
    bool is_directory;
    struct stat st;
    int status = 0;
    int fd;

    error_quote(shown_input, sizeof(shown_input), input, strlen(input));
    fd = open_input(&is_directory, input, shown_input, err);
    if (fd < 0)
        return err->code;
    if (is_directory && fstat(fd, &st) == 0 &&
        outdir_is_inside(place->out_fd >= 0 ? place->out_fd : place->parent_fd, &st)) {
        status = error_set(err, ERR_USAGE,
                           "the output '%s' is or lies in the input '%s'; choose another output",
                           place->shown, shown_input);
        goto out;
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

static bool is_listed(const struct outdir_inputs *inputs, const struct stat *st)
{
    for (size_t i = 0; i < inputs->count; i++) {
        if (inputs->list[i].device == st->st_dev && inputs->list[i].inode == st->st_ino)
            return true;
    }
    return false;
}

int outdir_inputs_find(struct outdir_inputs *out, const char *const *inputs, size_t input_count,
                       struct error *err)
{
    *out = (struct outdir_inputs){ 0 };
    out->list = calloc(input_count + 1, sizeof(*out->list));
    if (!out->list)
        return error_no_memory(err, "the directories of the inputs");
    for (size_t i = 0; i < input_count; i++) {
        char shown[OUTDIR_SHOWN_BYTES];
        bool is_directory;
        struct stat st;
        int fd;

        error_quote(shown, sizeof(shown), inputs[i], strlen(inputs[i]));
        fd = open_input(&is_directory, inputs[i], shown, err);
        if (fd < 0)
            return err->code;
        if (fstat(fd, &st) == 0 && !is_listed(out, &st))
            out->list[out->count++] = (struct outdir_input){ st.st_dev, st.st_ino, inputs[i] };
        close(fd);
    }
    return 0;
}

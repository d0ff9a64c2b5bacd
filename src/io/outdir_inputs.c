#include "io/outdir_internal.h"

#include "base/array.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

#define TOUCHED_MAX 3u

/* What is looked at for every input: found once. */
struct surroundings {
    struct stat *above; /* the directory that OUT is or stands in, and all above it */
    size_t above_count;
    size_t above_capacity;
    struct { /* directories that would be written or removed */
        struct stat st;
        char shown[OUTDIR_SHOWN_BYTES];
    } touched[TOUCHED_MAX];
    unsigned touched_count;
};

static int add_above(struct surroundings *around, int fd, struct error *err)
{
    int here = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

    for (;;) {
        struct stat st;
        struct stat *more;
        int next;

        if (here < 0 || fstat(here, &st) < 0)
            break;
        if (around->above_count && same(&around->above[around->above_count - 1], &st))
            break; /* the root directory is its own parent */
        more = array_next(around->above, around->above_count, &around->above_capacity,
                          sizeof(*more));
        if (!more) {
            close(here);
            return error_no_memory(err, "the directories above the output");
        }
        around->above = more;
        around->above[around->above_count++] = st;
        next = openat(here, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(here);
        here = next;
    }
    if (here >= 0)
        close(here);
    return 0;
}

static void add_touched(struct surroundings *around, int parent_fd, const char *name,
                        const char *shown)
{
    struct stat st;

    if (!*name || fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
        return;
    around->touched[around->touched_count].st = st;
    snprintf(around->touched[around->touched_count++].shown, OUTDIR_SHOWN_BYTES, "%s", shown);
}

static int look_around(struct surroundings *around, const struct outdir_place *place,
                       struct error *err)
{
    char shown[OUTDIR_SHOWN_BYTES];

    if (add_above(around, place->out_fd >= 0 ? place->out_fd : place->parent_fd, err))
        return err->code;
    if (place->out_fd >= 0)
        add_touched(around, place->out_fd, ".", place->shown);
    add_touched(around, place->parent_fd, place->partial,
                outdir_show(shown, place, place->partial));
    add_touched(around, place->parent_fd, place->old, outdir_show(shown, place, place->old));
    return 0;
}

static bool lies_in(const struct surroundings *around, int input_fd)
{
    bool found = false;
    struct stat st;

    if (fstat(input_fd, &st) < 0)
        return false;
    for (size_t i = 0; i < around->above_count && !found; i++)
        found = same(&around->above[i], &st);
    return found;
}

static int check_input(const struct outdir_place *place, const struct surroundings *around,
                       const char *input, struct error *err)
{
    char shown_input[OUTDIR_SHOWN_BYTES];
    bool is_directory;
    int status = 0;
    int fd;

    error_quote(shown_input, sizeof(shown_input), input, strlen(input));
    fd = open_input(&is_directory, input, shown_input, err);
    if (fd < 0)
        return err->code;
    if (is_directory && lies_in(around, fd))
        status = error_set(err, ERR_USAGE,
                           "the output '%s' is or lies in the input '%s'; choose another output",
                           place->shown, shown_input);
    for (unsigned i = 0; i < around->touched_count && !status; i++) {
        if (outdir_is_inside(fd, &around->touched[i].st))
            status = error_set(err, ERR_USAGE,
                               "'%s', which would be written or removed, is or holds the input "
                               "'%s'; choose another output",
                               around->touched[i].shown, shown_input);
    }
    close(fd);
    return status;
}

int outdir_place_check_inputs(const struct outdir_place *place, const char *const *inputs,
                              size_t input_count, struct error *err)
{
    struct surroundings around = { 0 };
    int status = look_around(&around, place, err);

    for (size_t i = 0; i < input_count && !status; i++)
        status = check_input(place, &around, inputs[i], err);
    free(around.above);
    return status;
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

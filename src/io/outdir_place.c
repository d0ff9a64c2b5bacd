#include "io/outdir_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void outdir_place_release(struct outdir_place *place)
{
    if (place->parent_fd >= 0)
        close(place->parent_fd);
    if (place->out_fd >= 0)
        close(place->out_fd);
    place->parent_fd = -1;
    place->out_fd = -1;
}

const char *outdir_show(char shown[OUTDIR_SHOWN_BYTES], const struct outdir_place *place,
                        const char *name)
{
    char path[PATH_MAX + NAME_MAX + 2];
    const char *slash = strcmp(place->parent_path, "/") != 0 ? "/" : "";

    snprintf(path, sizeof(path), "%s%s%s", place->parent_path, slash, name);
    return error_quote(shown, OUTDIR_SHOWN_BYTES, path, strlen(path));
}

/* "a/b" into "a" and "b", "b" into "." and "b", "/b" into "/" and "b". */
static const char *split(char *path, const char **parent)
{
    char *slash = strrchr(path, '/');

    if (!slash) {
        *parent = ".";
        return path;
    }
    *parent = slash == path ? "/" : path;
    if (slash != path) {
        *slash = '\0';
        return slash + 1;
    }
    return path + 1;
}

static int refuse(struct error *err, const char *shown, const char *what)
{
    error_set_errno(err, "%s '%s'", what, shown);
    err->code = ERR_USAGE;
    return ERR_USAGE;
}

/* The name of OUT in its parent, and of what is made beside it. */
static int set_name(struct outdir_place *place, const char *name, struct error *err)
{
    size_t limit = NAME_MAX - strlen(OUTDIR_OLD_SUFFIX);
    size_t bytes = strlen(name);

    if (bytes > limit)
        return error_set(err, ERR_USAGE,
                         "the name of the output '%s' has %zu bytes, at most %zu are possible",
                         place->shown, bytes, limit);
    memcpy(place->name, name, bytes + 1);
    memcpy(place->partial, name, bytes);
    memcpy(place->partial + bytes, OUTDIR_PARTIAL_SUFFIX, sizeof(OUTDIR_PARTIAL_SUFFIX));
    memcpy(place->old, name, bytes);
    memcpy(place->old + bytes, OUTDIR_OLD_SUFFIX, sizeof(OUTDIR_OLD_SUFFIX));
    return 0;
}

/* OUT exists: where is it really? */
static int resolve_existing(struct outdir_place *place, const char *path, struct error *err)
{
    char real[PATH_MAX];
    const char *parent;
    const char *name;

    if (!realpath(path, real))
        return refuse(err, place->shown, "cannot resolve the output");
    place->out_fd = open(real, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (place->out_fd < 0)
        return refuse(err, place->shown, "cannot open the output directory");
    if (!strcmp(real, "/")) {
        memcpy(place->parent_path, "/", 2);
        return 0;
    }
    name = split(real, &parent);
    memcpy(place->parent_path, parent, strlen(parent) + 1);
    return set_name(place, name, err);
}

/* OUT does not exist: where is it to be made? */
static int resolve_missing(struct outdir_place *place, char *path, struct error *err)
{
    char shown_parent[OUTDIR_SHOWN_BYTES];
    const char *parent;
    const char *name = split(path, &parent);

    error_quote(shown_parent, sizeof(shown_parent), parent, strlen(parent));
    if (!realpath(parent, place->parent_path)) {
        if (errno == ENOENT)
            return error_set(err, ERR_USAGE,
                             "'%s' cannot be made: its parent '%s' does not exist; create that "
                             "first",
                             place->shown, shown_parent);
        if (errno == ENOTDIR)
            return error_set(err, ERR_USAGE,
                             "'%s' cannot be made: its parent '%s' is not a directory",
                             place->shown, shown_parent);
        return refuse(err, shown_parent, "cannot resolve the parent directory");
    }
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return error_set(err, ERR_USAGE, "'%s' cannot be the name of an output", place->shown);
    return set_name(place, name, err);
}

static int open_parent(struct outdir_place *place, struct error *err)
{
    char shown[OUTDIR_SHOWN_BYTES];

    place->parent_fd = open(place->parent_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* One that may be entered but not listed is enough to work inside an existing OUT. */
    if (place->parent_fd < 0 && errno == EACCES)
        place->parent_fd = open(place->parent_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (place->parent_fd >= 0)
        return 0;
    error_quote(shown, sizeof(shown), place->parent_path, strlen(place->parent_path));
    if (errno == ENOTDIR)
        return error_set(err, ERR_USAGE, "'%s' cannot be made: its parent '%s' is not a directory",
                         place->shown, shown);
    return refuse(err, shown, "cannot open the parent directory");
}

int outdir_place_resolve(struct outdir_place *place, const char *path, struct error *err)
{
    char trimmed[PATH_MAX];
    size_t bytes = strlen(path);
    struct stat st;
    int status;

    error_quote(place->shown, sizeof(place->shown), path, bytes);
    while (bytes > 1 && path[bytes - 1] == '/')
        bytes--;
    if (bytes == 0)
        return error_set(err, ERR_USAGE, "the path of the output directory is empty");
    if (bytes >= sizeof(trimmed))
        return error_set(err, ERR_USAGE,
                         "the path of the output directory has %zu bytes, at most %zu are possible",
                         bytes, sizeof(trimmed) - 1);
    memcpy(trimmed, path, bytes);
    trimmed[bytes] = '\0';

    if (stat(trimmed, &st) == 0) {
        if (!S_ISDIR(st.st_mode))
            return error_set(err, ERR_USAGE, "'%s' exists and is not a directory", place->shown);
        status = resolve_existing(place, trimmed, err);
    } else if (errno == ENOENT || errno == ENOTDIR) {
        if (lstat(trimmed, &st) == 0)
            return error_set(err, ERR_USAGE,
                             "'%s' is a link that leads nowhere; remove it or choose another "
                             "output",
                             place->shown);
        status = resolve_missing(place, trimmed, err);
    } else {
        return refuse(err, place->shown, "cannot use the output directory");
    }
    if (status == 0)
        status = open_parent(place, err);
    return status;
}

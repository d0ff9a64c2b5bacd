/*
 * outdir_internal.h - the parts of an output directory, for outdir*.c and their test only
 *
 *   outdir_place    what the user's path means: which directory, which way of working
 *   outdir_work     the locked work directory
 *   outdir_remove   removal that stays inside
 *   outdir_publish  putting the work in place
 *
 * Every directory that lorafold may delete on its own holds the marker file OUTDIR_MARKER, which
 * is also what is locked: the lock of a file works on file systems that refuse that of a directory.
 * The marker is made before anything else in the directory and removed after everything else.  One
 * that cannot be removed from a finished directory gets OUTDIR_SPENT_BYTES, and marks no more.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef IO_OUTDIR_INTERNAL_H
#define IO_OUTDIR_INTERNAL_H

#include "io/outdir.h"

#include <limits.h>
#include <sys/stat.h>

#define OUTDIR_MARKER ".lorafold-work"
#define OUTDIR_SPENT_BYTES 1 /* of a marker that is otherwise empty */
#define OUTDIR_INSIDE_NAME ".lorafold.partial"
#define OUTDIR_PARTIAL_SUFFIX ".partial"
#define OUTDIR_OLD_SUFFIX ".lorafold-old"

/* A path in a sentence; a longer one ends in "...". */
#define OUTDIR_SHOWN_BYTES 400

enum outdir_mode {
    OUTDIR_NEW,    /* OUT does not exist */
    OUTDIR_INSIDE, /* OUT is empty */
    OUTDIR_REPLACE /* OUT holds a model that is to be replaced */
};

/* What the path of an output means at the moment. */
struct outdir_place {
    enum outdir_mode mode;
    bool restore; /* OUT is missing since a crash between two renames; what it held is in `old` */
    int parent_fd;
    int out_fd;              /* -1: OUT does not exist */
    char name[NAME_MAX + 1]; /* of OUT in its parent; empty for the root directory */
    char partial[NAME_MAX + 1];
    char old[NAME_MAX + 1];
    char parent_path[PATH_MAX];     /* resolved */
    char shown[OUTDIR_SHOWN_BYTES]; /* OUT as the user wrote it */
};

#define OUTDIR_NO_PLACE ((struct outdir_place){ .parent_fd = -1, .out_fd = -1 })

/* Look, and refuse what outdir_check() refuses.  The place is released by the caller in any case.
 */
int outdir_place_find(struct outdir_place *place, const char *path, bool overwrite,
                      const char *const *inputs, size_t input_count, struct error *err);
int outdir_place_resolve(struct outdir_place *place, const char *path, struct error *err);
void outdir_place_release(struct outdir_place *place);

/* ERR_USAGE if an input lies in, above, or is OUT or one of the directories made beside it. */
int outdir_place_check_inputs(const struct outdir_place *place, const char *const *inputs,
                              size_t input_count, struct error *err);

/* Is the directory `fd` the one that `directory` describes, or does it lie in that? */
bool outdir_is_inside(int fd, const struct stat *directory);

/* "PARENT/name", safe to print. */
const char *outdir_show(char shown[OUTDIR_SHOWN_BYTES], const struct outdir_place *place,
                        const char *name);

struct outdir_work {
    int fd;      /* the directory; -1: none */
    int lock_fd; /* the marker */
};
#define OUTDIR_NO_WORK ((struct outdir_work){ .fd = -1, .lock_fd = -1 })

/* What stands where a work directory would be. */
enum outdir_state {
    OUTDIR_ABSENT,
    OUTDIR_EMPTY,
    OUTDIR_MARKED,  /* made by lorafold, may be removed if nobody locks it */
    OUTDIR_FOREIGN, /* somebody else's, or what stood at OUT before an overwrite */
    OUTDIR_NO_DIRECTORY
};
int outdir_state_of(enum outdir_state *out, int parent_fd, const char *name, const char *shown,
                    struct error *err);
int outdir_not_ours(enum outdir_state state, const char *shown, struct error *err);

/* Make or take over the directory, lock it, and empty it but for the marker. */
int outdir_work_acquire(struct outdir_work *work, int parent_fd, const char *name,
                        const char *shown, const struct log *log, struct error *err);

/* Remove the directory with everything in it, and close it. */
int outdir_work_remove(struct outdir_work *work, int parent_fd, const char *name, const char *shown,
                       struct error *err);
void outdir_work_close(struct outdir_work *work);

/* Mark an open directory, which is closed, as lorafold's, and remove it. */
int outdir_doom(int directory_fd, int parent_fd, const char *name, const char *shown,
                struct error *err);

/* Does `name` in `parent_fd` still name what is open as `fd`? */
bool outdir_still_names(int parent_fd, const char *name, int fd);

/*
 * Remove everything in a directory except the entry `keep` (or NULL).  Links are removed, never
 * followed; another file system is never entered.
 */
int outdir_remove_contents(int directory_fd, const char *keep, const char *shown,
                           struct error *err);

/* Call `visit` for each entry but "." and ".."; it stops at the first that is not 0. */
int outdir_each_entry(int directory_fd, int (*visit)(void *context, const char *name),
                      void *context, const char *shown, struct error *err);

/* Is something mounted on the directory `fd`, whose parent is `parent_fd`? */
bool outdir_is_mount_point(int parent_fd, int fd);

/* The directories that the inputs are or stand in, each once. */
struct outdir_input {
    dev_t device;
    ino_t inode;
    const char *path; /* the first input that led to it; the caller's */
};
struct outdir_inputs {
    struct outdir_input *list; /* freed by the caller, also after a failure */
    size_t count;
};
int outdir_inputs_find(struct outdir_inputs *out, const char *const *inputs, size_t input_count,
                       struct error *err);

/*
 * ERR_USAGE if something is mounted anywhere below the directory, or if a directory below it is
 * that of an input: the path of the input need not lead through here, because a directory can be
 * mounted at a second place.
 */
int outdir_check_below(int directory_fd, const struct outdir_inputs *inputs, const char *shown,
                       struct error *err);

/* fsync of a directory; file systems that cannot do it are forgiven. */
int outdir_sync(int directory_fd, const char *shown, struct error *err);

/* Rename without replacing: EEXIST if the new name is taken.  0, or -1 with errno. */
int outdir_rename_new(int from_fd, const char *from, int to_fd, const char *to);

struct outdir {
    struct outdir_place place;
    struct outdir_work work;
    const struct log *log;
    bool published;
    char work_shown[OUTDIR_SHOWN_BYTES];
};

/* The directory that holds the work directory, and its name there. */
int outdir_work_parent(const struct outdir *outdir);
const char *outdir_work_name(const struct outdir *outdir);

/* Points at which a test may end the process, to see what the next one makes of the rest. */
enum outdir_step {
    OUTDIR_STEP_MADE,        /* the work directory exists without a marker */
    OUTDIR_STEP_LOCKED,      /* ...and has one, which is locked */
    OUTDIR_STEP_OLD_MOVED,   /* between two renames: OUT is missing */
    OUTDIR_STEP_PLACED,      /* OUT is the new directory; old one and marker are still there */
    OUTDIR_STEP_DOOMED,      /* the old directory is marked */
    OUTDIR_STEP_MOVED_ONE,   /* into an existing OUT: the first file */
    OUTDIR_STEP_BEFORE_LAST, /* into an existing OUT: all but what makes it look finished */
    OUTDIR_STEPS
};
struct outdir_hooks {
    bool no_exchange; /* as on a file system without RENAME_EXCHANGE */
    bool no_lock;     /* as on a file system without flock */
    void (*step)(enum outdir_step step);
};
extern struct outdir_hooks outdir_hooks; /* all zero but in tests */
void outdir_reach(enum outdir_step step);

#endif

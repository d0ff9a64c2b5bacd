/*
 * outdir_help.h - what the tests of output directories share
 *
 * Each test runs in a temporary directory of its own, which is the current one.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_OUTDIR_HELP_H
#define TESTS_OUTDIR_HELP_H

#include "base/error.h"
#include "base/log.h"
#include "io/outdir.h"
#include "io/outdir_internal.h"
#include "io_temp.h"

#include <dirent.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static char *directory;
static char said[2048];

static inline void keep_said(void *context, enum log_level level, const char *sentence)
{
    (void)context;
    snprintf(said + strlen(said), sizeof(said) - strlen(said), "%d %s\n", level, sentence);
}

static const struct log the_log = { keep_said, NULL };

static inline int set_up(void **state)
{
    (void)state;
    said[0] = '\0';
    memset(&outdir_hooks, 0, sizeof(outdir_hooks));
    directory = temp_make(NULL);
    assert_int_equal(chdir(directory), 0);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    assert_int_equal(chdir(directory), 0);
    assert_int_equal(chdir(".."), 0);
    temp_remove(directory);
    return 0;
}

static inline bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static inline bool holds(const char *path, const char *text)
{
    char buf[64] = { 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

    if (fd >= 0)
        close(fd);
    return count >= 0 && !strcmp(buf, text);
}

static inline int entry_count(const char *path)
{
    DIR *stream = opendir(path);
    int count = 0;

    if (!stream)
        return -1;
    while (readdir(stream))
        count++;
    closedir(stream);
    return count - 2;
}

static inline void put(const char *path, const char *text)
{
    temp_write(path, text, strlen(text));
}

/* A directory that looks like a model, with something below it. */
static inline void make_model(const char *path, const char *text)
{
    char file[PATH_MAX];

    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(file, sizeof(file), "%s/config.json", path);
    put(file, text);
    snprintf(file, sizeof(file), "%s/code", path);
    assert_int_equal(mkdir(file, 0777), 0);
    snprintf(file, sizeof(file), "%s/code/x.py", path);
    put(file, "x");
}

static inline int try_open(struct outdir **out, const char *path, bool overwrite, struct error *err)
{
    *err = (struct error){ 0 };
    return outdir_open(out, path, overwrite, NULL, 0, &the_log, err);
}

static inline struct outdir *must_open(const char *path, bool overwrite)
{
    struct outdir *outdir = NULL;
    struct error err = { 0 };

    if (outdir_check(path, overwrite, NULL, 0, &err) || try_open(&outdir, path, overwrite, &err))
        fail_msg("%s: %s", path, err.text);
    assert_true(outdir_fd(outdir) >= 0);
    return outdir;
}

/* Both the check and the opening refuse, and touch nothing. */
static inline void check_refused(const char *path, bool overwrite, const char *const *inputs,
                                 size_t input_count, const char *part)
{
    struct outdir *outdir = NULL;
    struct error err = { 0 };
    int before = entry_count(directory);
    int status = outdir_check(path, overwrite, inputs, input_count, &err);

    if (status != ERR_USAGE || !strstr(err.text, part))
        fail_msg("%s: check gives %d %s", path, status, err.text);
    print_message("%s\n", err.text);
    err = (struct error){ 0 };
    status = outdir_open(&outdir, path, overwrite, inputs, input_count, &the_log, &err);
    if (status != ERR_USAGE || !strstr(err.text, part) || outdir)
        fail_msg("%s: open gives %d %s", path, status, err.text);
    assert_int_equal(entry_count(directory), before);
}

static inline void write_model(struct outdir *outdir, const char *text)
{
    struct error err = { 0 };

    if (outdir_write_file(outdir, "model.safetensors", "weights", 7, &err) ||
        outdir_write_file(outdir, "config.json", text, strlen(text), &err))
        fail_msg("%s", err.text);
}

static inline int publish(struct outdir *outdir, struct error *err)
{
    const char *const last[] = { "model.safetensors.index.json", "config.json" };

    *err = (struct error){ 0 };
    return outdir_publish(outdir, last, 2, err);
}

static inline void must_publish(struct outdir *outdir)
{
    struct error err;

    if (publish(outdir, &err))
        fail_msg("%s", err.text);
    assert_int_equal(outdir_fd(outdir), -1);
    outdir_discard(outdir); /* does nothing any more */
    outdir_close(outdir);
}

static inline void run_whole(const char *path, bool overwrite)
{
    struct outdir *outdir = must_open(path, overwrite);

    write_model(outdir, "new");
    must_publish(outdir);
}

#endif

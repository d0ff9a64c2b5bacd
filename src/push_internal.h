/*
 * push_internal.h - what the parts of a push share: push.c, push_thread.c, push_check.c,
 * push_directory.c
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef PUSH_INTERNAL_H
#define PUSH_INTERNAL_H

#include "base/text.h"
#include "merge.h"
#include "push.h"

#include <pthread.h>

#define PUSH_SENDS 3u /* files on their way at a time, as many as the helper sends */
#define PUSH_STEP_MS 50

struct push_message {
    enum log_level level;
    char *sentence;
};

/* A file that the helper was asked to store. */
struct push_send {
    bool used;
    uint64_t id;
    struct push_file file;
    int fd;         /* of a file that moves; -1: none */
    uint64_t bytes; /* that are there, as far as it is known */
};

struct push {
    struct lorafold_destination to; /* strings are the caller's */
    char repo[256];                 /* as the Hub calls it */
    const struct log *log;          /* of the caller */
    struct log own_log;             /* keeps sentences for push_tell() */
    struct hub_helper *helper;      /* the thread's, once it runs */
    int directories[2];
    void (*wake)(void *context);
    void *wake_context;
    pthread_t thread;
    bool has_thread;
    double began;

    pthread_mutex_t mutex; /* of all that follows */
    pthread_cond_t changed;
    struct push_message *messages;
    size_t message_count;
    size_t message_capacity;
    struct push_file *files; /* added */
    size_t file_count;
    size_t file_capacity;
    size_t next_file; /* to be sent */
    uint64_t bytes_added;
    uint64_t bytes_stored; /* with those of files on their way */
    uint32_t left;
    bool all_added;
    bool giving_up;
    bool committing;
    bool ended; /* the thread has nothing more to do */
    struct error error;
    struct lorafold_push_report report;

    /* The thread's alone. */
    struct push_send sends[PUSH_SENDS];
    int *kept; /* descriptors of files that go with the commit */
    size_t kept_count;
    size_t kept_capacity;
    uint8_t *buffer; /* PLAN_BLOCK_BYTES */
};

void *push_thread_main(void *push);

/* Under the mutex, which the caller does not hold. */
bool push_is_given_up(struct push *push);

/*
 * Read a file again and compare it with its blocks.  ERR_DIFFERENT names the first one that
 * differs. ERR_CANCELLED when the push is given up.
 */
int push_check(struct push *push, const struct push_file *file, struct error *err);

/* The members of the request that makes the commit. */
void push_add_commit(struct text *out, const struct lorafold_destination *to);

/* The file, opened for reading, where it is now. */
int push_open_file(const struct push *push, const struct push_file *file, int *fd,
                   struct error *err);

#endif

#include "io/ring_ops.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Two to four threads reach what io_uring does on one disk (measured: docs/BENCHMARKS.md). */
#define THREAD_COUNT_MAX 4

/* Requests in the order in which they came. */
struct request_list {
    struct ring_request *first;
    struct ring_request *last;
};

struct ring_threads {
    struct ring base;
    pthread_t threads[THREAD_COUNT_MAX];
    unsigned thread_count;

    pthread_mutex_t mutex; /* for what follows */
    pthread_cond_t work;   /* `queued` or `closing` changed */
    struct request_list queued;
    struct request_list finished;
    bool closing;
};

static void list_push(struct request_list *list, struct ring_request *request)
{
    request->next = NULL;
    if (list->first)
        list->last->next = request;
    else
        list->first = request;
    list->last = request;
}

static struct ring_request *list_pop(struct request_list *list)
{
    struct ring_request *request = list->first;

    if (request)
        list->first = request->next;
    return request;
}

static void transfer(struct ring_request *request)
{
    int fd = request->file->fd;
    ssize_t result = 0;

    do {
        struct ring_range rest;

        switch (request->operation) {
        case RING_READ:
            rest = ring_request_rest(request);
            result = pread(fd, rest.memory, rest.bytes, (off_t)rest.offset);
            break;
        case RING_WRITE:
            rest = ring_request_rest(request);
            result = pwrite(fd, rest.memory, rest.bytes, (off_t)rest.offset);
            break;
        case RING_SYNC:
            result = fsync(fd);
            break;
        }
    } while (!ring_request_advance(request, result < 0 ? -errno : result));
}

/* Make a ring_wait() that sleeps look at the list again. */
static void report(struct ring_threads *self)
{
    const uint64_t one = 1;
    ssize_t written;

    do {
        written = write(self->base.wake_fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
}

static void *work(void *context)
{
    struct ring_threads *self = context;

    pthread_mutex_lock(&self->mutex);
    for (;;) {
        struct ring_request *request;
        bool was_empty;

        while (!self->queued.first && !self->closing)
            pthread_cond_wait(&self->work, &self->mutex);
        request = list_pop(&self->queued);
        if (!request)
            break;
        pthread_mutex_unlock(&self->mutex);
        transfer(request);
        pthread_mutex_lock(&self->mutex);
        was_empty = !self->finished.first;
        list_push(&self->finished, request);
        if (was_empty)
            report(self);
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

static void threads_submit(struct ring *ring, struct ring_request *request)
{
    struct ring_threads *self = (struct ring_threads *)ring;

    pthread_mutex_lock(&self->mutex);
    list_push(&self->queued, request);
    pthread_cond_signal(&self->work);
    pthread_mutex_unlock(&self->mutex);
}

static int threads_wait(struct ring *ring, struct ring_request **done, struct error *err)
{
    struct ring_threads *self = (struct ring_threads *)ring;

    for (;;) {
        struct ring_request *request;
        uint64_t count;

        if (atomic_exchange(&ring->woken, false)) {
            *done = NULL;
            return 0;
        }
        pthread_mutex_lock(&self->mutex);
        request = list_pop(&self->finished);
        pthread_mutex_unlock(&self->mutex);
        if (request) {
            *done = request;
            return 0;
        }
        if (read(ring->wake_fd, &count, sizeof(count)) < 0 && errno != EINTR)
            return error_set_errno(err, "cannot wait for transfers");
    }
}

static void threads_close(struct ring *ring)
{
    struct ring_threads *self = (struct ring_threads *)ring;

    pthread_mutex_lock(&self->mutex);
    self->closing = true;
    pthread_cond_broadcast(&self->work);
    pthread_mutex_unlock(&self->mutex);
    for (unsigned i = 0; i < self->thread_count; i++)
        pthread_join(self->threads[i], NULL);
    pthread_cond_destroy(&self->work);
    pthread_mutex_destroy(&self->mutex);
    ring_base_release(ring);
    free(self);
}

static const struct ring_ops threads_ops = { "threads", threads_submit, threads_wait,
                                             threads_close };

int ring_threads_open(struct ring **out, unsigned depth, struct error *err)
{
    struct ring_threads *self = calloc(1, sizeof(*self));
    unsigned wanted = depth < THREAD_COUNT_MAX ? depth : THREAD_COUNT_MAX;
    sigset_t all, before;
    int result = 0;
    int status;

    if (!self)
        return error_no_memory(err, "the ring");
    status = ring_base_init(&self->base, &threads_ops, depth, err);
    if (status) {
        free(self);
        return status;
    }
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->work, NULL);

    /* Signals are for the threads of the program. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (result == 0 && self->thread_count < wanted) {
        result = pthread_create(&self->threads[self->thread_count], NULL, work, self);
        if (result == 0)
            self->thread_count++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (self->thread_count == 0) {
        errno = result;
        error_set_errno(err, "cannot start a thread for transfers");
        threads_close(&self->base);
        return ERR_FAILED;
    }
    *out = &self->base;
    return 0;
}

#include "io/ring_ops.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

/* From <linux/io_uring.h> of Linux 6.1; older kernels refuse them and get a plain ring. */
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12)
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13)
#endif

struct ring_uring {
    struct ring base;
    struct io_uring uring;
    uint64_t wake_count;  /* what the eventfd gave */
    bool wake_is_awaited; /* a read of the eventfd is in flight; its user data is NULL */
};

static bool may_be_repeated(int result)
{
    return result == -EINTR || result == -EAGAIN || result == -EBUSY;
}

/* There is always an entry: one for each request in flight, and one for the eventfd. */
static struct io_uring_sqe *next_entry(struct ring_uring *self)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&self->uring);

    assert(entry);
    return entry;
}

static void uring_submit(struct ring *ring, struct ring_request *request)
{
    struct ring_uring *self = (struct ring_uring *)ring;
    struct io_uring_sqe *entry = next_entry(self);
    struct ring_range rest;

    switch (request->operation) {
    case RING_READ:
        rest = ring_request_rest(request);
        io_uring_prep_read(entry, request->file->fd, rest.memory, (unsigned)rest.bytes,
                           rest.offset);
        break;
    case RING_WRITE:
        rest = ring_request_rest(request);
        io_uring_prep_write(entry, request->file->fd, rest.memory, (unsigned)rest.bytes,
                            rest.offset);
        break;
    case RING_SYNC:
        io_uring_prep_fsync(entry, request->file->fd, 0);
        break;
    }
    io_uring_sqe_set_data(entry, request);
}

static void await_wake(struct ring_uring *self)
{
    struct io_uring_sqe *entry;

    if (self->wake_is_awaited)
        return;
    entry = next_entry(self);
    io_uring_prep_read(entry, self->base.wake_fd, &self->wake_count, sizeof(self->wake_count), 0);
    io_uring_sqe_set_data(entry, NULL);
    self->wake_is_awaited = true;
}

/*
 * Hand over what is queued and take one completion; `*data` is its user data.  The kernel is
 * entered also when a completion is already there (it then returns at once): with DEFER_TASKRUN
 * that is when it sees to the eventfd, which transfers that finish while they are submitted would
 * keep waiting for ever.
 */
static int next_completion(struct ring_uring *self, void **data, int *result)
{
    struct io_uring_cqe *completion = NULL;

    do {
        int status = io_uring_submit_and_wait(&self->uring, 1);

        if (status < 0 && !may_be_repeated(status))
            return status;
    } while (io_uring_peek_cqe(&self->uring, &completion) != 0 || !completion);
    *data = io_uring_cqe_get_data(completion);
    *result = completion->res;
    io_uring_cqe_seen(&self->uring, completion);
    return 0;
}

static int uring_wait(struct ring *ring, struct ring_request **done, struct error *err)
{
    struct ring_uring *self = (struct ring_uring *)ring;

    for (;;) {
        struct ring_request *request;
        void *data = NULL;
        int result = 0;
        int status;

        await_wake(self);
        status = next_completion(self, &data, &result);
        if (status < 0) {
            errno = -status;
            return error_set_errno(err, "cannot wait for transfers");
        }
        request = data;
        if (request) {
            if (ring_request_advance(request, result)) {
                *done = request;
                return 0;
            }
            uring_submit(ring, request);
            continue;
        }
        self->wake_is_awaited = false;
        if (result == (int)sizeof(self->wake_count)) {
            (void)atomic_exchange(&ring->woken, false);
            *done = NULL;
            return 0;
        }
        if (!may_be_repeated(result)) {
            errno = result < 0 ? -result : EIO;
            return error_set_errno(err, "cannot wait to be woken");
        }
    }
}

static void uring_close(struct ring *ring)
{
    struct ring_uring *self = (struct ring_uring *)ring;
    void *data = NULL;
    int result = 0;

    /* The kernel ends requests after a ring is closed; by then their memory must not be needed. */
    if (self->wake_is_awaited) {
        ring_wake(ring);
        (void)next_completion(self, &data, &result);
    }
    io_uring_queue_exit(&self->uring);
    ring_base_release(ring);
    free(self);
}

static const struct ring_ops uring_ops = { "io_uring", uring_submit, uring_wait, uring_close };

/*
 * A sandbox may allow the ring to be made and then refuse to use it, and the first kernels with
 * io_uring lack the read operation, so both kinds of request are tried.
 */
static int probe(struct ring_uring *self)
{
    void *data = NULL;
    int result = 0;
    int status;

    io_uring_prep_nop(next_entry(self));
    status = next_completion(self, &data, &result);
    if (status < 0 || result < 0)
        return status < 0 ? status : result;

    ring_wake(&self->base);
    await_wake(self);
    status = next_completion(self, &data, &result);
    self->wake_is_awaited = false;
    atomic_store(&self->base.woken, false);
    if (status < 0 || result < 0)
        return status < 0 ? status : result;
    return result == (int)sizeof(self->wake_count) ? 0 : -EIO;
}

int ring_uring_open(struct ring **out, unsigned depth, struct error *err)
{
    struct ring_uring *self = calloc(1, sizeof(*self));
    bool has_uring = false;
    int result;
    int status;

    if (!self)
        return error_no_memory(err, "the ring");
    status = ring_base_init(&self->base, &uring_ops, depth, err);
    if (status)
        goto out;
    result = io_uring_queue_init(depth + 1, &self->uring,
                                 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    if (result == -EINVAL)
        result = io_uring_queue_init(depth + 1, &self->uring, 0);
    if (result == 0) {
        has_uring = true;
        result = probe(self);
    }
    if (result < 0) {
        errno = -result;
        status = error_set_errno(err, "io_uring is not available");
        goto out;
    }
    *out = &self->base;
    self = NULL;
out:
    if (self) {
        if (has_uring)
            io_uring_queue_exit(&self->uring);
        ring_base_release(&self->base);
        free(self);
    }
    return status;
}

#include "io/ring.h"

#include "base/bytes.h"
#include "io/ring_ops.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DEPTH_MAX 4096

/* The kernel transfers less than 2 GiB per call whatever is asked for. */
#define TRANSFER_BYTES_MAX GIB

int ring_base_init(struct ring *ring, const struct ring_ops *ops, unsigned depth, struct error *err)
{
    ring->ops = ops;
    ring->depth = depth;
    atomic_init(&ring->woken, false);
    ring->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (ring->wake_fd < 0)
        return error_set_errno(err, "cannot make an event descriptor");
    return 0;
}

void ring_base_release(struct ring *ring)
{
    if (ring->wake_fd >= 0)
        close(ring->wake_fd);
    ring->wake_fd = -1;
}

int ring_open(struct ring **out, enum ring_kind kind, unsigned depth, struct error *err)
{
    struct error refused = { 0 };
    int status;

    if (depth < 1 || depth > DEPTH_MAX)
        return error_set(err, ERR_USAGE, "%u transfers in flight are not in 1..%d", depth,
                         DEPTH_MAX);
    if (kind == RING_URING)
        return ring_uring_open(out, depth, err);
    if (kind == RING_AUTO && ring_uring_open(out, depth, &refused) == 0)
        return 0;
    status = ring_threads_open(out, depth, err);
    if (status == 0)
        snprintf((*out)->reason, sizeof((*out)->reason), "%.*s", (int)sizeof((*out)->reason) - 1,
                 refused.text);
    return status;
}

const char *ring_name(const struct ring *ring)
{
    return ring->ops->name;
}

const char *ring_reason(const struct ring *ring)
{
    return ring->reason;
}

struct ring_range ring_request_rest(const struct ring_request *request)
{
    /* After a short direct transfer the page that it ended in is transferred again. */
    size_t start = request->file->direct ? (size_t)align_down(request->done, PAGE_BYTES)
                                         : request->done;

    return (struct ring_range){
        .memory = (uint8_t *)request->memory + start,
        .bytes = (size_t)min_u64(request->bytes - start, TRANSFER_BYTES_MAX),
        .offset = request->offset + start,
    };
}

static bool finish(struct ring_request *request, int status)
{
    request->status = status;
    return true;
}

bool ring_request_advance(struct ring_request *request, int64_t result)
{
    size_t start;

    if (result == -EINTR || result == -EAGAIN)
        return false;
    if (result < 0)
        return finish(request, (int)-result);
    if (request->operation == RING_SYNC)
        return finish(request, 0);

    /* The end of the file: nothing more came, or only what an unaligned end gave before. */
    start = (size_t)(ring_request_rest(request).offset - request->offset);
    if (start + (size_t)result <= request->done) {
        if (request->operation == RING_WRITE)
            return finish(request, EIO);
        return finish(request, request->done >= request->bytes_needed ? 0 : ENODATA);
    }
    request->done = start + (size_t)result;
    if (request->done >= request->bytes)
        return finish(request, 0);
    if (request->operation == RING_READ && request->done >= request->bytes_needed)
        return finish(request, 0);
    return false;
}

void ring_submit(struct ring *ring, struct ring_request *request)
{
    assert(ring->in_flight < ring->depth);
    ring->in_flight++;
    request->status = 0;
    request->done = 0;
    request->next = NULL;
    if (request->operation != RING_SYNC &&
        (request->offset > INT64_MAX || request->bytes > INT64_MAX - request->offset))
        request->status = EOVERFLOW;
    else if (request->operation == RING_SYNC || request->bytes) {
        ring->ops->submit(ring, request);
        return;
    } else if (request->operation == RING_READ && request->bytes_needed)
        request->status = ENODATA;
    request->next = ring->trivial;
    ring->trivial = request;
}

int ring_wait(struct ring *ring, struct ring_request **done, struct error *err)
{
    int status = 0;

    if (ring->trivial) {
        *done = ring->trivial;
        ring->trivial = (*done)->next;
    } else {
        status = ring->ops->wait(ring, done, err);
    }
    if (status == 0 && *done) {
        (*done)->next = NULL;
        ring->in_flight--;
    }
    return status;
}

void ring_wake(struct ring *ring)
{
    const uint64_t one = 1;
    int saved = errno;
    ssize_t written;

    atomic_store(&ring->woken, true);
    do {
        written = write(ring->wake_fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    errno = saved;
}

void ring_close(struct ring *ring)
{
    if (!ring)
        return;
    assert(ring->in_flight == 0);
    ring->ops->close(ring);
}

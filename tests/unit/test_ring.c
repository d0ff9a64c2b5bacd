#include "base/bytes.h"
#include "base/error.h"
#include "io/file.h"
#include "io/pool.h"
#include "io/ring.h"
#include "io/ring_ops.h"
#include "io_temp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SLOTS 8
#define SLOT_BYTES (2 * MIB)
#define SEED 20240601

static char *directory;
static enum ring_kind kind_now;

/* ---- what is done after a transfer, without one ---- */

struct advance_case {
    const char *what;
    enum ring_operation operation;
    bool direct;
    size_t bytes, bytes_needed;
    int64_t results[6]; /* 0 ends only where it is the end of the file: `count` says how many */
    int count;
    int status;
    size_t rests[6]; /* where each transfer starts */
};

static const struct advance_case advance_cases[] = {
    { "whole", RING_READ, true, 8192, 8192, { 8192 }, 1, 0, { 0 } },
    { "past the end", RING_READ, true, 8192, 5000, { 5000 }, 1, 0, { 0 } },
    { "end where it is needed",
      RING_READ,
      true,
      8192,
      8192,
      { 5000, 904 },
      2,
      ENODATA,
      { 0, 4096 } },
    { "empty", RING_READ, true, 8192, 1, { 0 }, 1, ENODATA, { 0 } },
    { "empty, nothing needed", RING_READ, true, 8192, 0, { 0 }, 1, 0, { 0 } },
    { "direct, rest from the page border",
      RING_READ,
      true,
      16384,
      16384,
      { 512, 4608, 12288 },
      3,
      0,
      { 0, 0, 4096 } },
    { "buffered, rest from where it stopped",
      RING_READ,
      false,
      16384,
      16384,
      { 512, 1, 15871 },
      3,
      0,
      { 0, 512, 513 } },
    { "interrupted", RING_READ, true, 4096, 4096, { -EINTR, -EAGAIN, 4096 }, 3, 0, { 0, 0, 0 } },
    { "failed", RING_READ, true, 4096, 4096, { -EIO }, 1, EIO, { 0 } },
    { "refused half way", RING_READ, true, 8192, 8192, { 4096, -EINVAL }, 2, EINVAL, { 0, 4096 } },
    { "short write", RING_WRITE, true, 16384, 0, { 5000, 12288 }, 2, 0, { 0, 4096 } },
    { "short buffered write", RING_WRITE, false, 100, 0, { 1, 2, 97 }, 3, 0, { 0, 1, 3 } },
    { "write that stops", RING_WRITE, true, 8192, 0, { 5000, 904 }, 2, EIO, { 0, 4096 } },
    { "write of nothing", RING_WRITE, false, 10, 0, { 0 }, 1, EIO, { 0 } },
    { "no space", RING_WRITE, true, 8192, 0, { 4096, -ENOSPC }, 2, ENOSPC, { 0, 4096 } },
    { "sync", RING_SYNC, true, 0, 0, { 0 }, 1, 0, { 0 } },
    { "sync interrupted", RING_SYNC, false, 0, 0, { -EINTR, 0 }, 2, 0, { 0, 0 } },
    { "sync failed", RING_SYNC, false, 0, 0, { -EIO }, 1, EIO, { 0 } },
};

static void test_ring__rest_of_a_transfer(void **state)
{
    static uint8_t memory[16384];

    (void)state;
    for (size_t i = 0; i < sizeof(advance_cases) / sizeof(advance_cases[0]); i++) {
        const struct advance_case *now = &advance_cases[i];
        struct file file = { .fd = -1, .direct = now->direct };
        struct ring_request request = { .operation = now->operation,
                                        .file = &file,
                                        .memory = memory,
                                        .bytes = now->bytes,
                                        .bytes_needed = now->bytes_needed,
                                        .offset = 1 << 20 };

        for (int k = 0; k < now->count; k++) {
            struct ring_range rest = ring_request_rest(&request);
            bool finished;

            if (rest.offset != request.offset + now->rests[k] ||
                rest.memory != memory + now->rests[k] || rest.bytes != now->bytes - now->rests[k])
                fail_msg("%s, transfer %d: starts at %zu", now->what, k,
                         (size_t)(rest.offset - request.offset));
            finished = ring_request_advance(&request, now->results[k]);
            if (finished != (k == now->count - 1))
                fail_msg("%s, transfer %d: finished is %d", now->what, k, finished);
        }
        if (request.status != now->status)
            fail_msg("%s: status %d", now->what, request.status);
    }
}

/* ---- both back-ends ---- */

static int set_up(void **state)
{
    struct error err = { 0 };
    struct ring *ring = NULL;

    kind_now = *(enum ring_kind *)*state;
    directory = temp_make(NULL);
    assert_int_equal(chdir(directory), 0);
    if (kind_now == RING_URING && ring_open(&ring, RING_URING, 1, &err))
        print_message("skipped: %s\n", err.text);
    else if (kind_now == RING_URING)
        ring_close(ring);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(chdir(".."), 0);
    temp_remove(directory);
    return 0;
}

static struct ring *open_ring(unsigned depth)
{
    struct error err = { 0 };
    struct ring *ring = NULL;

    if (ring_open(&ring, kind_now, depth, &err)) {
        if (kind_now == RING_URING)
            skip();
        fail_msg("%s", err.text);
    }
    assert_string_equal(ring_name(ring), kind_now == RING_URING ? "io_uring" : "threads");
    assert_string_equal(ring_reason(ring), "");
    return ring;
}

static void open_output(struct file *file, const char *name, uint64_t bytes,
                        enum file_direct direct)
{
    int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct error err = { 0 };

    assert_int_equal(file_create_output(fd, name, bytes, &err), 0);
    assert_int_equal(file_open_output(file, fd, name, direct, &err), 0);
    close(fd);
}

static struct ring_request *wait_done(struct ring *ring)
{
    struct ring_request *done = NULL;
    struct error err = { 0 };

    if (ring_wait(ring, &done, &err))
        fail_msg("%s", err.text);
    return done;
}

static void test_ring__depth_is_checked(void **state)
{
    struct error err = { 0 };
    struct ring *ring = NULL;

    (void)state;
    assert_int_equal(ring_open(&ring, kind_now, 0, &err), ERR_USAGE);
    assert_int_equal(ring_open(&ring, kind_now, 4097, &err), ERR_USAGE);
    assert_null(ring);
    ring_close(NULL);
    ring_close(open_ring(4096));
    ring_close(open_ring(1));
}

static uint8_t pattern(uint64_t offset)
{
    return (uint8_t)(offset * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static void fill(uint8_t *memory, size_t bytes, uint64_t offset)
{
    for (size_t i = 0; i < bytes; i++)
        memory[i] = pattern(offset + i);
}

static void check(const uint8_t *memory, size_t bytes, uint64_t offset)
{
    for (size_t i = 0; i < bytes; i++) {
        if (memory[i] != pattern(offset + i))
            fail_msg("byte %zu at offset %llu differs", i, (unsigned long long)offset);
    }
}

static void test_ring__errors_are_reported(void **state)
{
    struct ring *ring = open_ring(16);
    struct file closed = FILE_CLOSED, file = FILE_CLOSED;
    struct error err = { 0 };
    static uint8_t memory[16][64]; /* the threads transfer at the same time */
    struct ring_request requests[] = {
        { .operation = RING_READ,
          .file = &closed,
          .bytes = 64,
          .bytes_needed = 64,
          .status = EBADF },
        { .operation = RING_SYNC, .file = &closed, .status = EBADF },
        { .operation = RING_WRITE, .file = &file, .bytes = 64, .status = EBADF },
        { .operation = RING_READ,
          .file = &file,
          .bytes = 64,
          .bytes_needed = 11,
          .status = ENODATA },
        { .operation = RING_READ, .file = &file, .bytes = 64, .bytes_needed = 10, .status = 0 },
        { .operation = RING_READ, .file = &file, .bytes = 64, .offset = 1000, .status = 0 },
        { .operation = RING_READ, .file = &file, .bytes = 0, .status = 0 },
        { .operation = RING_READ, .file = &file, .bytes = 0, .bytes_needed = 1, .status = ENODATA },
        { .operation = RING_WRITE, .file = &file, .bytes = 0, .status = 0 },
        { .operation = RING_READ,
          .file = &file,
          .bytes = 64,
          .offset = UINT64_MAX - 3,
          .status = EOVERFLOW },
        { .operation = RING_READ,
          .file = &file,
          .bytes = SIZE_MAX,
          .offset = 3,
          .status = EOVERFLOW },
    };
    enum { COUNT = sizeof(requests) / sizeof(requests[0]) };
    int expected[COUNT];

    (void)state;
    temp_write("ten", "0123456789", 10);
    assert_int_equal(file_open_input(&file, "ten", FILE_DIRECT_OFF, &err), 0);
    for (int i = 0; i < COUNT; i++) {
        expected[i] = requests[i].status;
        requests[i].memory = memory[i];
        requests[i].user = &expected[i];
        ring_submit(ring, &requests[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        struct ring_request *done = wait_done(ring);

        assert_non_null(done);
        if (done->status != *(int *)done->user)
            fail_msg("request %zd: %s", done - requests, strerror(done->status));
    }
    assert_memory_equal(memory[3], "0123456789", 10);
    assert_memory_equal(memory[4], "0123456789", 10);
    ring_close(ring);
    file_close(&file);
}

/* A direct transfer that the file system cannot align is EINVAL, in the middle of the work too. */
static void test_ring__misaligned_direct_is_invalid(void **state)
{
    struct ring *ring = open_ring(2);
    struct file file = FILE_CLOSED;
    struct pool pool = { 0 };
    struct error err = { 0 };
    struct ring_request request;

    (void)state;
    open_output(&file, "out", 1 * MIB, FILE_DIRECT_AUTO);
    if (!file.direct) {
        print_message("skipped: no direct i/o here\n");
        file_close(&file);
        ring_close(ring);
        skip();
    }
    assert_int_equal(pool_open(&pool, 1, false, &err), 0);
    request = (struct ring_request){
        .operation = RING_READ, .file = &file, .memory = pool.memory + 8, .bytes = 4096
    };
    ring_submit(ring, &request);
    assert_ptr_equal(wait_done(ring), &request);
    assert_int_equal(request.status, EINVAL);
    ring_close(ring);
    file_close(&file);
    pool_close(&pool);
}

/*
 * A random mix on two files at once, direct and buffered: every part of both is written, then
 * read, in random order and in sizes from one page to a slot; the last part is odd.
 */
struct part {
    const struct file *file;
    uint64_t offset;
    size_t bytes; /* valid */
};

static size_t cut(struct part *parts, const struct file *file, uint64_t total, uint64_t *rng)
{
    size_t count = 0;

    for (uint64_t offset = 0; offset < total; count++) {
        size_t bytes = (size_t)((temp_random(rng) % (SLOT_BYTES / PAGE_BYTES) + 1) * PAGE_BYTES);

        parts[count] = (struct part){ file, offset, (size_t)min_u64(bytes, total - offset) };
        offset += parts[count].bytes;
    }
    return count;
}

static void shuffle(struct part *parts, size_t count, uint64_t *rng)
{
    for (size_t i = count; i > 1; i--) {
        size_t k = (size_t)(temp_random(rng) % i);
        struct part swapped = parts[i - 1];

        parts[i - 1] = parts[k];
        parts[k] = swapped;
    }
}

static void start(struct ring *ring, struct ring_request *request, const struct part *part,
                  enum ring_operation operation)
{
    size_t bytes = part->file->direct ? (size_t)align_up(part->bytes, PAGE_BYTES) : part->bytes;

    request->operation = operation;
    request->file = part->file;
    request->offset = part->offset;
    request->bytes = bytes;
    request->bytes_needed = part->bytes;
    if (operation == RING_WRITE) {
        fill(request->memory, part->bytes, part->offset);
        memset((uint8_t *)request->memory + part->bytes, 0, bytes - part->bytes);
    } else {
        memset(request->memory, 0xee, bytes);
    }
    ring_submit(ring, request);
}

static void run_parts(struct ring *ring, struct pool *pool, const struct part *parts, size_t count,
                      enum ring_operation operation)
{
    struct ring_request requests[SLOTS];
    size_t next = 0, finished = 0;

    for (int i = 0; i < SLOTS; i++) {
        requests[i] = (struct ring_request){ .memory = pool->memory + (size_t)i * SLOT_BYTES };
        if (next < count)
            start(ring, &requests[i], &parts[next++], operation);
    }
    while (finished < count) {
        struct ring_request *done = wait_done(ring);

        if (!done)
            continue;
        if (done->status)
            fail_msg("offset %llu: %s", (unsigned long long)done->offset, strerror(done->status));
        if (operation == RING_READ)
            check(done->memory, done->bytes_needed, done->offset);
        finished++;
        if (next < count)
            start(ring, done, &parts[next++], operation);
    }
}

static void test_ring__random_mix(void **state)
{
    const uint64_t total = 24 * MIB + 12345;
    struct ring *ring = open_ring(SLOTS);
    struct file files[2] = { FILE_CLOSED, FILE_CLOSED };
    struct part *parts = calloc(2 * (total / PAGE_BYTES + 1), sizeof(*parts));
    struct ring_request sync = { .operation = RING_SYNC, .file = &files[0] };
    struct pool pool = { 0 };
    struct error err = { 0 };
    uint64_t rng = SEED;
    size_t count;

    (void)state;
    print_message("seed %d\n", SEED);
    assert_int_equal(pool_open(&pool, SLOTS * SLOT_BYTES, true, &err), 0);
    open_output(&files[0], "direct", align_up(total, PAGE_BYTES), FILE_DIRECT_AUTO);
    open_output(&files[1], "buffered", total, FILE_DIRECT_OFF);
    count = cut(parts, &files[0], total, &rng);
    count += cut(parts + count, &files[1], total, &rng);
    shuffle(parts, count, &rng);
    run_parts(ring, &pool, parts, count, RING_WRITE);
    ring_submit(ring, &sync);
    assert_ptr_equal(wait_done(ring), &sync);
    assert_int_equal(sync.status, 0);
    assert_int_equal(file_truncate(&files[0], total, &err), 0);
    file_close(&files[0]);
    file_close(&files[1]);

    assert_int_equal(file_open_input(&files[0], "direct", FILE_DIRECT_AUTO, &err), 0);
    assert_int_equal(file_open_input(&files[1], "buffered", FILE_DIRECT_OFF, &err), 0);
    assert_int_equal(files[0].identity.bytes, total);
    shuffle(parts, count, &rng);
    run_parts(ring, &pool, parts, count, RING_READ);
    for (int i = 0; i < 2; i++)
        file_close(&files[i]);
    ring_close(ring);
    pool_close(&pool);
    free(parts);
}

/* One request of 64 MiB, which the kernel may cut as it likes. */
static void test_ring__large_request(void **state)
{
    struct ring *ring = open_ring(1);
    struct ring_request request;
    struct file file = FILE_CLOSED;
    struct pool pool = { 0 };
    struct error err = { 0 };

    (void)state;
    assert_int_equal(pool_open(&pool, 64 * MIB, true, &err), 0);
    open_output(&file, "large", 64 * MIB, FILE_DIRECT_AUTO);
    fill(pool.memory, pool.bytes, 0);
    request = (struct ring_request){
        .operation = RING_WRITE, .file = &file, .memory = pool.memory, .bytes = 64 * MIB
    };
    ring_submit(ring, &request);
    assert_ptr_equal(wait_done(ring), &request);
    assert_int_equal(request.status, 0);
    memset(pool.memory, 0, pool.bytes);
    request.operation = RING_READ;
    request.bytes_needed = 64 * MIB;
    ring_submit(ring, &request);
    assert_ptr_equal(wait_done(ring), &request);
    assert_int_equal(request.status, 0);
    check(pool.memory, pool.bytes, 0);
    file_close(&file);
    ring_close(ring);
    pool_close(&pool);
}

/* ---- being woken ---- */

#define WAKERS 3
#define WAKES 2000

struct waker {
    struct ring *ring;
    pthread_mutex_t mutex;
    unsigned posted;
};

static void *wake_often(void *context)
{
    struct waker *waker = context;

    for (int i = 0; i < WAKES; i++) {
        pthread_mutex_lock(&waker->mutex);
        waker->posted++;
        pthread_mutex_unlock(&waker->mutex);
        ring_wake(waker->ring);
    }
    return NULL;
}

/* No wake is lost: after the last one there is a return with everything visible. */
static void test_ring__many_wakes_between_transfers(void **state)
{
    struct ring *ring = open_ring(SLOTS);
    struct waker waker = { .ring = ring };
    pthread_t threads[WAKERS];
    struct ring_request requests[SLOTS];
    struct file file = FILE_CLOSED;
    struct pool pool = { 0 };
    struct error err = { 0 };
    unsigned seen = 0, woken = 0, transfers = 0;

    (void)state;
    pthread_mutex_init(&waker.mutex, NULL);
    assert_int_equal(pool_open(&pool, 2 * MIB, true, &err), 0);
    open_output(&file, "file", 1 * MIB, FILE_DIRECT_AUTO);
    for (int i = 0; i < SLOTS; i++) {
        requests[i] = (struct ring_request){ .operation = RING_READ,
                                             .file = &file,
                                             .memory = pool.memory + (size_t)i * 65536,
                                             .bytes = 65536,
                                             .bytes_needed = 65536,
                                             .offset = (uint64_t)i * 65536 };
        ring_submit(ring, &requests[i]);
    }
    for (int i = 0; i < WAKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, wake_often, &waker), 0);
    while (seen < WAKERS * WAKES) {
        struct ring_request *done = wait_done(ring);

        if (done) {
            assert_int_equal(done->status, 0);
            transfers++;
            ring_submit(ring, done);
            continue;
        }
        woken++;
        pthread_mutex_lock(&waker.mutex);
        seen = waker.posted;
        pthread_mutex_unlock(&waker.mutex);
    }
    for (int i = 0; i < WAKERS; i++)
        pthread_join(threads[i], NULL);
    for (int left = SLOTS; left;) {
        struct ring_request *done = wait_done(ring);

        if (done)
            left--;
    }
    print_message("%u wakes reported as %u, %u transfers\n", WAKERS * WAKES, woken, transfers);
    assert_true(woken >= 1 && woken <= WAKERS * WAKES);
    ring_wake(ring); /* one that nobody waits for any more */
    ring_close(ring);
    file_close(&file);
    pool_close(&pool);
    pthread_mutex_destroy(&waker.mutex);
}

/* Reads that finish while they are submitted (here: of a hole) do not keep a wake waiting. */
static void test_ring__wake_is_not_starved(void **state)
{
    struct ring *ring = open_ring(2);
    static uint8_t memory[4096];
    struct ring_request request;
    struct file file = FILE_CLOSED;
    bool woken = false;

    (void)state;
    open_output(&file, "file", 1 * MIB, FILE_DIRECT_OFF);
    request = (struct ring_request){
        .operation = RING_READ, .file = &file, .memory = memory, .bytes = 4096
    };
    ring_submit(ring, &request);
    assert_ptr_equal(wait_done(ring), &request);
    ring_submit(ring, &request);
    ring_wake(ring);
    for (int i = 0; i < 1000 && !woken; i++) {
        struct ring_request *done = wait_done(ring);

        if (done)
            ring_submit(ring, done);
        else
            woken = true;
    }
    assert_true(woken);
    assert_ptr_equal(wait_done(ring), &request);
    ring_close(ring);
    file_close(&file);
}

static void test_ring__wake_before_wait_is_kept(void **state)
{
    struct ring *ring = open_ring(1);

    (void)state;
    for (int i = 0; i < 100; i++) {
        ring_wake(ring);
        ring_wake(ring);
        assert_null(wait_done(ring));
    }
    ring_close(ring);
    /* Woken, but never waited for. */
    ring = open_ring(1);
    ring_wake(ring);
    ring_close(ring);
}

static struct ring *signal_ring;

static void on_signal(int number)
{
    (void)number;
    ring_wake(signal_ring);
}

/* A signal interrupts the wait; its handler wakes the ring, and nothing else does. */
static void test_ring__woken_by_a_signal_handler(void **state)
{
    struct sigaction action = { .sa_handler = on_signal }, before;
    const struct itimerval soon = { { 0, 0 }, { 0, 1000 } };

    (void)state;
    signal_ring = open_ring(1);
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
        assert_null(wait_done(signal_ring));
    }
    assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
    ring_close(signal_ring);
}

/* ---- where io_uring is refused ---- */

/* In a child: this system call gives EPERM from now on, as in a container. */
static bool refuse_call(long number)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int open_refused(long number)
{
    struct ring_request *done = NULL;
    struct error err = { 0 };
    struct ring *ring = NULL;

    if (!refuse_call(number))
        return 77;
    if (ring_open(&ring, RING_URING, 4, &err) != ERR_FAILED || ring)
        return 1;
    if (strcmp(err.text, "io_uring is not available: Operation not permitted") != 0)
        return 2;
    if (ring_open(&ring, RING_AUTO, 4, &err) || strcmp(ring_name(ring), "threads") != 0)
        return 3;
    if (strcmp(ring_reason(ring), "io_uring is not available: Operation not permitted") != 0)
        return 4;
    ring_wake(ring);
    if (ring_wait(ring, &done, &err) || done)
        return 5;
    ring_close(ring);
    return 0;
}

static void test_ring__falls_back_where_refused(void **state)
{
    const long numbers[] = { SYS_io_uring_setup, SYS_io_uring_enter };

    (void)state;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        pid_t child = fork();
        int status = 0;

        if (child == 0)
            _exit(open_refused(numbers[i]));
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
            print_message("skipped: seccomp filters are not available\n");
            skip();
        }
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

static enum ring_kind uring = RING_URING, threads = RING_THREADS;

#define BOTH(name)                                                                                 \
    { #name "_uring", name, set_up, tear_down, &uring },                                           \
    {                                                                                              \
#name "_threads", name, set_up, tear_down, &threads                                        \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring__rest_of_a_transfer),
        cmocka_unit_test(test_ring__falls_back_where_refused),
        BOTH(test_ring__depth_is_checked),
        BOTH(test_ring__errors_are_reported),
        BOTH(test_ring__misaligned_direct_is_invalid),
        BOTH(test_ring__random_mix),
        BOTH(test_ring__large_request),
        BOTH(test_ring__many_wakes_between_transfers),
        BOTH(test_ring__wake_is_not_starved),
        BOTH(test_ring__wake_before_wait_is_kept),
        BOTH(test_ring__woken_by_a_signal_handler),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

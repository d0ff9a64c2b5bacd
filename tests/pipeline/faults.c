#include "pipeline/faults.h"

#include "io/ring.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

const char *const fault_names[FAULT_KINDS] = {
    "memory", "read", "write", "file", "thread", "wait"
};

static atomic_int armed = -1; /* the kind */
static atomic_uint countdown;
static atomic_int reached;

static void (*called)(void); /* in place of a failure, unless NULL */

static int strikes(enum fault_kind kind)
{
    if (atomic_load(&armed) != (int)kind || atomic_fetch_sub(&countdown, 1) != 1)
        return 0;
    atomic_store(&reached, 1);
    if (!called)
        return 1;
    called();
    return 0;
}

void *__wrap_malloc(size_t bytes);

static void free_plain(void *memory)
{
    free(memory);
}

void fault_arm(enum fault_kind kind, unsigned number)
{
    static cJSON_Hooks hooks = { .malloc_fn = __wrap_malloc, .free_fn = free_plain };

    cJSON_InitHooks(&hooks);
    called = NULL;
    atomic_store(&reached, 0);
    atomic_store(&countdown, number);
    atomic_store(&armed, (int)kind);
}

void fault_call(enum fault_kind kind, unsigned number, void (*call)(void))
{
    called = call;
    atomic_store(&reached, 0);
    atomic_store(&countdown, number);
    atomic_store(&armed, (int)kind);
}

int fault_disarm(void)
{
    atomic_store(&armed, -1);
    return atomic_load(&reached);
}

/* RETURN NAME(PARAMETERS) fails with ERROR, giving VALUE, when a call of KIND is struck. */
#define FAULT(kind, result, name, parameters, arguments, value, error)                             \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        if (strikes(kind)) {                                                                       \
            errno = (error);                                                                       \
            return value;                                                                          \
        }                                                                                          \
        return __real_##name arguments;                                                            \
    }

FAULT(FAULT_MEMORY, void *, malloc, (size_t n), (n), NULL, ENOMEM)
FAULT(FAULT_MEMORY, void *, calloc, (size_t n, size_t s), (n, s), NULL, ENOMEM)
FAULT(FAULT_MEMORY, void *, realloc, (void *p, size_t n), (p, n), NULL, ENOMEM)
FAULT(FAULT_MEMORY, void *, aligned_alloc, (size_t a, size_t n), (a, n), NULL, ENOMEM)
FAULT(FAULT_MEMORY, int, posix_memalign, (void **p, size_t a, size_t n), (p, a, n), ENOMEM, ENOMEM)
FAULT(FAULT_MEMORY, char *, strdup, (const char *s), (s), NULL, ENOMEM)
FAULT(FAULT_MEMORY, char *, strndup, (const char *s, size_t n), (s, n), NULL, ENOMEM)
FAULT(FAULT_MEMORY, void *, mmap, (void *p, size_t n, int a, int b, int c, off_t d),
      (p, n, a, b, c, d), MAP_FAILED, ENOMEM)
FAULT(FAULT_READ, ssize_t, pread, (int f, void *p, size_t n, off_t o), (f, p, n, o), -1, EIO)
FAULT(FAULT_READ, ssize_t, read, (int f, void *p, size_t n), (f, p, n), -1, EIO)
FAULT(FAULT_WRITE, ssize_t, send, (int f, const void *p, size_t n, int a), (f, p, n, a), -1,
      ENOBUFS)
FAULT(FAULT_FILE, int, socketpair, (int d, int t, int p, int *f), (d, t, p, f), -1, EMFILE)
FAULT(FAULT_FILE, int, pipe2, (int *f, int a), (f, a), -1, EMFILE)
FAULT(FAULT_FILE, int, posix_spawnp,
      (pid_t * p, const char *n, const posix_spawn_file_actions_t *f, const posix_spawnattr_t *a,
       char *const *v, char *const *e),
      (p, n, f, a, v, e), EAGAIN, EAGAIN)
FAULT(FAULT_WRITE, ssize_t, pwrite, (int f, const void *p, size_t n, off_t o), (f, p, n, o), -1,
      ENOSPC)
FAULT(FAULT_FILE, int, fstat, (int f, struct stat *s), (f, s), -1, EIO)
FAULT(FAULT_FILE, int, fsync, (int f), (f), -1, EIO)
FAULT(FAULT_FILE, int, ftruncate, (int f, off_t n), (f, n), -1, EIO)
FAULT(FAULT_FILE, int, fallocate, (int f, int m, off_t o, off_t n), (f, m, o, n), -1, ENOSPC)
FAULT(FAULT_FILE, int, unlinkat, (int f, const char *p, int a), (f, p, a), -1, EIO)
FAULT(FAULT_FILE, int, mkdirat, (int f, const char *p, mode_t m), (f, p, m), -1, EACCES)
FAULT(FAULT_FILE, int, renameat2, (int f, const char *p, int g, const char *q, unsigned h),
      (f, p, g, q, h), -1, EIO)
FAULT(FAULT_FILE, int, renameat, (int f, const char *p, int g, const char *q), (f, p, g, q), -1,
      EIO)
FAULT(FAULT_THREAD, int, pthread_create,
      (pthread_t * t, const pthread_attr_t *a, void *(*m)(void *), void *p), (t, a, m, p), EAGAIN,
      EAGAIN)

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    mode_t mode;

    va_start(args, flags);
    mode = va_arg(args, mode_t); /* rubbish without O_CREAT, and then not looked at */
    va_end(args);
    if (strikes(FAULT_FILE)) {
        errno = EMFILE;
        return -1;
    }
    return __real_open(path, flags, mode);
}

int __real_openat(int directory, const char *path, int flags, ...);
int __wrap_openat(int directory, const char *path, int flags, ...);
int __wrap_openat(int directory, const char *path, int flags, ...)
{
    va_list args;
    mode_t mode;

    va_start(args, flags);
    mode = va_arg(args, mode_t);
    va_end(args);
    if (strikes(FAULT_FILE)) {
        errno = EMFILE;
        return -1;
    }
    return __real_openat(directory, path, flags, mode);
}

/* ---- syncs that take long; one thread owns the ring, so there is nothing to lock ---- */

static bool lazy;
static struct ring_request *held; /* syncs that the ring has not seen yet */
static unsigned held_count;
static unsigned held_most;
static unsigned others; /* requests in flight */

void fault_make_syncs_lazy(void)
{
    lazy = true;
    held_most = 0;
}

unsigned fault_lazy_syncs(void)
{
    lazy = false;
    return held_most;
}

void __real_ring_submit(struct ring *ring, struct ring_request *request);
void __wrap_ring_submit(struct ring *ring, struct ring_request *request);
void __wrap_ring_submit(struct ring *ring, struct ring_request *request)
{
    if (!lazy || request->operation != RING_SYNC) {
        others++;
        __real_ring_submit(ring, request);
        return;
    }
    request->next = held;
    held = request;
    if (++held_count > held_most)
        held_most = held_count;
}

int __real_ring_wait(struct ring *ring, struct ring_request **done, struct error *err);
int __wrap_ring_wait(struct ring *ring, struct ring_request **done, struct error *err);
int __wrap_ring_wait(struct ring *ring, struct ring_request **done, struct error *err)
{
    int status;

    if (strikes(FAULT_WAIT)) {
        errno = EIO;
        return error_set_errno(err, "cannot wait for transfers");
    }
    if (held && others == 0) {
        struct ring_request *request = held;

        held = request->next;
        held_count--;
        others++;
        __real_ring_submit(ring, request);
    }
    status = __real_ring_wait(ring, done, err);
    if (!status && *done)
        others--;
    if (status || !*done || (*done)->status)
        return status;
    if ((*done)->operation == RING_READ    ? strikes(FAULT_READ)
        : (*done)->operation == RING_WRITE ? strikes(FAULT_WRITE)
                                           : strikes(FAULT_FILE))
        (*done)->status = EIO;
    return 0;
}

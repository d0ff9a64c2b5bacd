/* sim.c - a device without one: streams are threads, its memory is the host's but apart */
#include "base/bytes.h"
#include "base/clock.h"
#include "gpu/gpu.h"
#include "gpu/kernels.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUEUE_STEPS 64u
#define FREE_BYTES (UINT64_C(1) << 30)
#define YIELDS_MAX 64u /* before a step */
/* As bf16 and fp32 close to overflow, as f16 and fp8 NaN, as a word of results not DEVICE_FINITE.
 */
#define SPOILED 0x7f

enum step_kind { STEP_COPY, STEP_RUN, STEP_MARK };

struct step {
    enum step_kind kind;
    void *to;
    const void *from;
    size_t bytes;
    unsigned mark;
    struct device_task task;
};

struct mark {
    uint64_t number; /* of its step: done when so many are; 0: never set */
    double time;
};

struct device_stream {
    struct device *device;
    struct device_stream *next;
    uint32_t random;
    pthread_t thread;
    bool started;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct step steps[QUEUE_STEPS]; /* step n in place n % QUEUE_STEPS */
    uint64_t given;
    uint64_t wanted; /* steps that may be carried out */
    uint64_t done;
    bool ending;
    struct mark marks[DEVICE_MARKS];
};

struct memory {
    struct memory *next;
    void *bytes;
};

struct device {
    unsigned seed;
    struct memory *memories;
    struct device_stream *streams;
};

static uint32_t next_random(struct device_stream *stream)
{
    stream->random ^= stream->random << 13; /* xorshift32 */
    stream->random ^= stream->random >> 17;
    stream->random ^= stream->random << 5;
    return stream->random;
}

static void carry_out(struct device_stream *stream, struct step *step)
{
    if (stream->device->seed) {
        for (uint32_t i = next_random(stream) % YIELDS_MAX; i > 0; i--)
            sched_yield();
    }
    switch (step->kind) {
    case STEP_COPY:
        memcpy(step->to, step->from, step->bytes);
        break;
    case STEP_RUN:
        kernels_run_on_host(&step->task);
        break;
    case STEP_MARK:
        stream->marks[step->mark].time = clock_seconds();
        break;
    }
}

static void *stream_main(void *argument)
{
    struct device_stream *stream = argument;
    struct fold_environment environment;

    fold_environment_enter(&environment);
    pthread_mutex_lock(&stream->mutex);
    for (;;) {
        while (stream->done == stream->wanted && !stream->ending)
            pthread_cond_wait(&stream->changed, &stream->mutex);
        if (stream->done == stream->wanted)
            break;
        pthread_mutex_unlock(&stream->mutex);
        carry_out(stream, &stream->steps[stream->done % QUEUE_STEPS]);
        pthread_mutex_lock(&stream->mutex);
        stream->done++;
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&stream->mutex);
    fold_environment_leave(&environment);
    return NULL;
}

/* Let the stream carry out its steps up to `number`, and wait for them.  The mutex is held. */
static void reach(struct device_stream *stream, uint64_t number)
{
    if (stream->wanted < number) {
        stream->wanted = number;
        pthread_cond_broadcast(&stream->changed);
    }
    while (stream->done < number)
        pthread_cond_wait(&stream->changed, &stream->mutex);
}

/* A place for the next step; give() hands it over.  The mutex is held between the two. */
static struct step *new_step(struct device_stream *stream, enum step_kind kind)
{
    struct step *step = &stream->steps[stream->given % QUEUE_STEPS];

    pthread_mutex_lock(&stream->mutex);
    if (stream->given - stream->done == QUEUE_STEPS)
        reach(stream, stream->given - QUEUE_STEPS + 1);
    step->kind = kind;
    return step;
}

static void give(struct device_stream *stream)
{
    stream->given++;
    if (stream->device->seed) {
        stream->wanted = stream->given;
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&stream->mutex);
}

static int sim_open(struct device **out, unsigned number, struct error *err)
{
    struct device *device = calloc(1, sizeof(*device));

    if (!device)
        return error_no_memory(err, "the simulated device");
    device->seed = number;
    *out = device;
    return 0;
}

static void sim_close(struct device *device)
{
    if (!device)
        return;
    while (device->streams) {
        struct device_stream *stream = device->streams;

        device->streams = stream->next;
        if (stream->started) {
            pthread_mutex_lock(&stream->mutex);
            if (device->seed) /* without delays nobody has waited for the rest, so it is not done */
                stream->wanted = stream->given;
            stream->ending = true;
            pthread_cond_broadcast(&stream->changed);
            pthread_mutex_unlock(&stream->mutex);
            pthread_join(stream->thread, NULL);
        }
        pthread_cond_destroy(&stream->changed);
        pthread_mutex_destroy(&stream->mutex);
        free(stream);
    }
    while (device->memories) {
        struct memory *memory = device->memories;

        device->memories = memory->next;
        free(memory->bytes);
        free(memory);
    }
    free(device);
}

static void sim_describe(const struct device *device, struct device_info *out)
{
    *out = (struct device_info){ .name = "sim",
                                 .memory_bytes = FREE_BYTES,
                                 .free_bytes = FREE_BYTES };
    snprintf(out->description, sizeof(out->description), "simulated on the host, %s",
             device->seed ? "with delays" : "no step before it is waited for");
}

static int sim_take(struct device *device, void **memory, size_t bytes, struct error *err)
{
    struct memory *taken = calloc(1, sizeof(*taken));

    if (taken)
        taken->bytes = aligned_alloc(PAGE_BYTES, align_up(bytes, PAGE_BYTES));
    if (!taken || !taken->bytes) {
        free(taken);
        return error_no_memory(err, "the memory of the simulated device");
    }
    memset(taken->bytes, SPOILED, bytes);
    taken->next = device->memories;
    device->memories = taken;
    *memory = taken->bytes;
    return 0;
}

static bool sim_pin(struct device *device, void *host, size_t bytes)
{
    (void)device;
    (void)host;
    (void)bytes;
    return true;
}

static void sim_unpin(struct device *device, void *host)
{
    (void)device;
    (void)host;
}

static int sim_stream(struct device *device, struct device_stream **out, struct error *err)
{
    struct device_stream *stream = calloc(1, sizeof(*stream));
    sigset_t all;
    sigset_t before;
    int failed;

    if (!stream)
        return error_no_memory(err, "a stream");
    stream->device = device;
    stream->random = (device->seed * 2654435761u) | 1; /* Knuth; xorshift needs a bit */
    for (struct device_stream *other = device->streams; other; other = other->next)
        next_random(stream);
    pthread_mutex_init(&stream->mutex, NULL);
    pthread_cond_init(&stream->changed, NULL);
    stream->next = device->streams;
    device->streams = stream;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the host program's threads */
    failed = pthread_create(&stream->thread, NULL, stream_main, stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        errno = failed;
        return error_set_errno(err, "cannot start a stream of the simulated device");
    }
    stream->started = true;
    *out = stream;
    return 0;
}

static int copy(struct device_stream *stream, void *to, const void *from, size_t bytes)
{
    struct step *step = new_step(stream, STEP_COPY);

    step->to = to;
    step->from = from;
    step->bytes = bytes;
    give(stream);
    return 0;
}

static int sim_upload(struct device_stream *stream, void *memory, const void *host, size_t bytes,
                      struct error *err)
{
    (void)err;
    return copy(stream, memory, host, bytes);
}

static int sim_download(struct device_stream *stream, void *host, const void *memory, size_t bytes,
                        struct error *err)
{
    (void)err;
    return copy(stream, host, memory, bytes);
}

static int sim_run(struct device_stream *stream, const struct device_task *task, struct error *err)
{
    (void)err;
    new_step(stream, STEP_RUN)->task = *task;
    give(stream);
    return 0;
}

static int sim_mark(struct device_stream *stream, unsigned mark, struct error *err)
{
    (void)err;
    new_step(stream, STEP_MARK)->mark = mark;
    stream->marks[mark].number = stream->given + 1;
    give(stream);
    return 0;
}

static int sim_wait(struct device_stream *stream, unsigned mark, struct error *err)
{
    (void)err;
    pthread_mutex_lock(&stream->mutex);
    reach(stream, stream->marks[mark].number);
    pthread_mutex_unlock(&stream->mutex);
    return 0;
}

static double sim_seconds(struct device_stream *stream, unsigned from, unsigned to)
{
    return stream->marks[to].time - stream->marks[from].time;
}

const struct device_ops gpu_sim = {
    .name = "sim",
    .open = sim_open,
    .close = sim_close,
    .describe = sim_describe,
    .take = sim_take,
    .take_pinned = sim_take,
    .pin = sim_pin,
    .unpin = sim_unpin,
    .stream = sim_stream,
    .upload = sim_upload,
    .download = sim_download,
    .run = sim_run,
    .mark = sim_mark,
    .wait = sim_wait,
    .seconds = sim_seconds,
};

/* gpu_run.c - carrying out the tasks of tests, on the host or on a device */
#include "kernel/gpu_run.h"

#include "gpu/body.h"
#include "gpu/gpu.h"
#include "gpu/kernels.h"
#include "kernel/kernel_check.h"

#define ROOM_BYTES ((size_t)192 << 20)
/* Around what is copied; also what addresses are alike modulo. */
#define FRAME_BYTES ((size_t)256)
#define FRAME_POISON 0x5a

/* The device, if there is one, its memory, and the same memory on the host on its way. */
static struct {
    bool asked;
    const struct device_ops *ops; /* NULL: the host itself */
    struct device *device;
    struct device_stream *stream;
    void *memory;
    unsigned char *copy;
} place;

static void skip(const char *reason)
{
    printf("skipped: %s\n", reason);
    exit(77);
}

static void close_place(void)
{
    place.ops->close(place.device);
    free(place.copy);
}

static void open_place(void)
{
    const char *name = getenv("LORAFOLD_TEST_DEVICE");
    struct device_info info;
    struct error err = { 0 };
    char reason[256];

    place.asked = true;
    if (!name || strcmp(name, "host") == 0)
        return;
    if (strcmp(name, "sim") == 0)
        place.ops = &gpu_sim;
    else if (strcmp(name, "cuda") == 0 && gpu_cuda_count(reason, sizeof(reason)) == 0)
        skip(reason);
    else if (strcmp(name, "cuda") == 0)
        place.ops = &gpu_cuda;
    CHECK(place.ops, "LORAFOLD_TEST_DEVICE is '%s', and may be host, sim or cuda", name);
    CHECK(place.ops->open(&place.device, 0, &err) == 0, "%s", err.text);
    CHECK(place.ops->stream(place.device, &place.stream, &err) == 0, "%s", err.text);
    CHECK(place.ops->take(place.device, &place.memory, ROOM_BYTES, &err) == 0, "%s", err.text);
    place.copy = aligned_alloc(FRAME_BYTES, ROOM_BYTES);
    CHECK(place.copy, "no memory");
    atexit(close_place);
    place.ops->describe(place.device, &info);
    printf("device: %s, %s\n", info.name, info.description);
}

static void add(struct gpu_call *call, void *pointer, void *host, size_t bytes, bool written)
{
    CHECK(call->piece_count < GPU_CALL_PIECES, "a task of too many pieces");
    call->pieces[call->piece_count] = (struct gpu_piece){ .host = host,
                                                          .bytes = bytes,
                                                          .written = written };
    call->pointers[call->pointer_count++] = (struct gpu_pointer){ .place = pointer,
                                                                  .piece = call->piece_count++ };
}

void gpu_call_in(struct gpu_call *call, void *pointer, const void *host, size_t bytes)
{
    add(call, pointer, (void *)(uintptr_t)host, bytes, false);
}

void gpu_call_both(struct gpu_call *call, void *pointer, void *host, size_t bytes)
{
    add(call, pointer, host, bytes, true);
}

void gpu_call_same(struct gpu_call *call, void *pointer, const void *host)
{
    unsigned piece = 0;

    while (piece < call->piece_count && call->pieces[piece].host != host)
        piece++;
    CHECK(piece < call->piece_count, "no piece begins there");
    CHECK(call->pointer_count < GPU_CALL_PIECES, "a task of too many pointers");
    call->pointers[call->pointer_count++] = (struct gpu_pointer){ .place = pointer,
                                                                  .piece = piece };
}

/* Pointers of the task to its pieces, in the memory of the test or of the device. */
static void set_pointers(struct gpu_call *call)
{
    for (unsigned i = 0; i < call->pointer_count; i++) {
        const struct gpu_piece *piece = &call->pieces[call->pointers[i].piece];
        void *to = place.ops ? (unsigned char *)place.memory + piece->offset : piece->host;

        memcpy(call->pointers[i].place, &to, sizeof(to));
    }
}

/* Upwards, downwards, and two ways in between: results must be the same. */
static void run_on_host(struct gpu_call *call)
{
    static const unsigned orders[] = { 0, GPU_THREADS - 1, 0x2a, 0x55 };
    static unsigned turn;

    gpu_host_order = orders[turn++ % COUNT_OF(orders)];
    kernels_run_on_host(&call->task);
}

/* Where pieces lie on the device: alike modulo FRAME_BYTES, with a frame before and behind. */
static size_t lay_out(struct gpu_call *call)
{
    size_t end = 0;

    for (unsigned i = 0; i < call->piece_count; i++) {
        struct gpu_piece *piece = &call->pieces[i];

        piece->offset = end + FRAME_BYTES + (uintptr_t)piece->host % FRAME_BYTES;
        end = (piece->offset + piece->bytes + 2 * FRAME_BYTES - 1) / FRAME_BYTES * FRAME_BYTES;
    }
    CHECK(end <= ROOM_BYTES, "a task of %zu bytes", end);
    return end;
}

static void run_on_device(struct gpu_call *call)
{
    const struct device_ops *ops = place.ops;
    struct error err = { 0 };
    size_t end = lay_out(call);
    size_t checked = 0;

    memset(place.copy, FRAME_POISON, end);
    for (unsigned i = 0; i < call->piece_count; i++) {
        if (call->pieces[i].bytes)
            memcpy(place.copy + call->pieces[i].offset, call->pieces[i].host,
                   call->pieces[i].bytes);
    }
    set_pointers(call);
    CHECK(ops->upload(place.stream, place.memory, place.copy, end, &err) == 0, "%s", err.text);
    CHECK(ops->run(place.stream, &call->task, &err) == 0, "%s", err.text);
    CHECK(ops->mark(place.stream, 0, &err) == 0, "%s", err.text);
    CHECK(ops->wait(place.stream, 0, &err) == 0, "%s", err.text);
    CHECK(ops->download(place.stream, place.copy, place.memory, end, &err) == 0, "%s", err.text);
    CHECK(ops->mark(place.stream, 1, &err) == 0, "%s", err.text);
    CHECK(ops->wait(place.stream, 1, &err) == 0, "%s", err.text);
    for (unsigned i = 0; i < call->piece_count; i++) {
        const struct gpu_piece *piece = &call->pieces[i];

        for (; checked < piece->offset; checked++)
            CHECK(place.copy[checked] == FRAME_POISON, "operation %d wrote before piece %u",
                  (int)call->task.op, i);
        if (piece->written && piece->bytes)
            memcpy(piece->host, place.copy + piece->offset, piece->bytes);
        else
            CHECK(piece->bytes == 0 ||
                      memcmp(piece->host, place.copy + piece->offset, piece->bytes) == 0,
                  "operation %d wrote to what it reads", (int)call->task.op);
        checked += piece->bytes;
    }
    for (; checked < end; checked++)
        CHECK(place.copy[checked] == FRAME_POISON, "operation %d wrote behind all",
              (int)call->task.op);
}

void gpu_call_run(struct gpu_call *call)
{
    if (!place.asked)
        open_place();
    call->bad = DEVICE_FINITE;
    gpu_call_both(call, &call->task.bad, &call->bad, sizeof(call->bad));
    if (place.ops) {
        run_on_device(call);
    } else {
        set_pointers(call);
        run_on_host(call);
    }
}

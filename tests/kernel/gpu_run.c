/* gpu_run.c - carrying out the tasks of tests, on the host or on a device */
#include "kernel/gpu_run.h"

#include "gpu/body.h"
#include "gpu/kernels.h"
#include "kernel/kernel_check.h"

static void add(struct gpu_call *call, void *place, void *host, size_t bytes, bool written)
{
    CHECK(call->piece_count < GPU_CALL_PIECES, "a task of too many pieces");
    call->pieces[call->piece_count] = (struct gpu_piece){ .host = host,
                                                          .bytes = bytes,
                                                          .written = written };
    call->pointers[call->pointer_count++] = (struct gpu_pointer){ .place = place,
                                                                  .piece = call->piece_count++ };
}

void gpu_call_in(struct gpu_call *call, void *place, const void *host, size_t bytes)
{
    add(call, place, (void *)(uintptr_t)host, bytes, false);
}

void gpu_call_both(struct gpu_call *call, void *place, void *host, size_t bytes)
{
    add(call, place, host, bytes, true);
}

void gpu_call_same(struct gpu_call *call, void *place, const void *host)
{
    unsigned piece = 0;

    while (piece < call->piece_count && call->pieces[piece].host != host)
        piece++;
    CHECK(piece < call->piece_count, "no piece begins there");
    call->pointers[call->pointer_count++] = (struct gpu_pointer){ .place = place, .piece = piece };
}

/* Upwards, downwards, and two ways in between: results must be the same. */
static void run_on_host(struct gpu_call *call)
{
    static const unsigned orders[] = { 0, GPU_THREADS - 1, 0x2a, 0x55 };
    static unsigned turn;

    gpu_host_order = orders[turn++ % COUNT_OF(orders)];
    for (unsigned i = 0; i < call->pointer_count; i++)
        memcpy(call->pointers[i].place, &call->pieces[call->pointers[i].piece].host,
               sizeof(void *));
    call->bad = DEVICE_FINITE;
    call->task.bad = &call->bad;
    kernels_run_on_host(&call->task);
}

void gpu_call_run(struct gpu_call *call)
{
    run_on_host(call);
}

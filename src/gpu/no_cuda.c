/* no_cuda.c - in the place of cuda.c where there is no CUDA compiler */
#include "gpu/gpu.h"

#include <stdio.h>

#define REASON "this program was built without CUDA (tools/build --cuda builds it with CUDA)"

unsigned gpu_cuda_count(char *reason, size_t reason_bytes)
{
    snprintf(reason, reason_bytes, "%s", REASON);
    return 0;
}

static int cuda_open(struct device **out, unsigned number, struct error *err)
{
    (void)out;
    (void)number;
    return error_set(err, ERR_USAGE, "cuda cannot be used: %s", REASON);
}

static void cuda_close(struct device *device)
{
    (void)device;
}

/* What cannot be opened is not used. */
const struct device_ops gpu_cuda = { .name = "cuda", .open = cuda_open, .close = cuda_close };

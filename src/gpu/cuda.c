/*
 * cuda.c - the CUDA device: the runtime library, linked statically, finds the driver when it is
 * first called
 *
 * Work is only ever put into streams of its own, which do not wait for the default stream.  Events
 * make a waiting host sleep.
 */
#include "gpu/gpu.h"
#include "gpu/kernels.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct device_stream {
    struct device *device;
    struct device_stream *next;
    cudaStream_t stream;
    cudaEvent_t marks[DEVICE_MARKS];
};

enum memory_kind { MEMORY_DEVICE, MEMORY_HOST };

struct memory {
    struct memory *next;
    void *bytes;
    enum memory_kind kind;
};

struct device {
    int number;
    struct memory *memories;
    struct device_stream *streams;
    struct device_info info;
};

static int failed(const struct device *device, const char *call, cudaError_t code,
                  struct error *err)
{
    (void)cudaGetLastError(); /* it stands in err: do not report it at the next call again */
    return error_set(err, ERR_FAILED, "cuda:%d: %s failed: %s (%s)", device->number, call,
                     cudaGetErrorString(code), cudaGetErrorName(code));
}

/* The current device is one of the calling thread's properties. */
static int use(const struct device *device, struct error *err)
{
    cudaError_t code = cudaSetDevice(device->number);

    return code == cudaSuccess ? 0 : failed(device, "cudaSetDevice()", code, err);
}

unsigned gpu_cuda_count(char *reason, size_t reason_bytes)
{
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);

    *reason = '\0';
    if (code == cudaSuccess && count > 0)
        return (unsigned)count;
    (void)cudaGetLastError();
    if (code == cudaErrorInsufficientDriver)
        snprintf(reason, reason_bytes,
                 "there is no NVIDIA driver, or one older than CUDA %d.%d needs (libcuda.so.1)",
                 CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    else if (code == cudaErrorNoDevice || code == cudaSuccess)
        snprintf(reason, reason_bytes, "the NVIDIA driver shows no GPU");
    else
        snprintf(reason, reason_bytes, "%s (%s)", cudaGetErrorString(code), cudaGetErrorName(code));
    return 0;
}

/* A number at the beginning of a file of the device in sysfs; 0: there is none. */
static double read_number(const char *bus, const char *name)
{
    char path[128];
    double number = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bus, name);
    file = fopen(path, "re");
    if (!file)
        return 0;
    if (fscanf(file, "%lf", &number) != 1)
        number = 0;
    fclose(file);
    return number;
}

/* Of a PCIe link: transfers of a bit each, lanes, 128 of 130 bits, and a fifth less in practice. */
static double find_link_rate(int number)
{
    char bus[32] = "";

    if (cudaDeviceGetPCIBusId(bus, sizeof(bus), number) != cudaSuccess)
        return 0;
    for (char *at = bus; *at; at++)
        *at = (char)(*at >= 'A' && *at <= 'F' ? *at + ('a' - 'A') : *at);
    return read_number(bus, "max_link_speed") * 1e9 / 8 * read_number(bus, "max_link_width") *
           (128.0 / 130) * 0.8;
}

/* Two transfers in a clock (kHz) over so many bits. */
static double find_memory_rate(int number)
{
    int clock = 0;
    int bits = 0;

    if (cudaDeviceGetAttribute(&clock, cudaDevAttrMemoryClockRate, number) != cudaSuccess ||
        cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, number) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    return 2.0 * clock * 1000 * bits / 8;
}

/* What it is called, and what is free on it. */
static int ask(struct device *device, struct error *err)
{
    struct device_info *info = &device->info;
    struct cudaDeviceProp properties;
    size_t free_bytes = 0;
    size_t all_bytes = 0;
    int driver = 0;
    cudaError_t code = cudaGetDeviceProperties(&properties, device->number);

    if (code != cudaSuccess)
        return failed(device, "cudaGetDeviceProperties()", code, err);
    code = cudaMemGetInfo(&free_bytes, &all_bytes);
    if (code != cudaSuccess)
        return failed(device, "cudaMemGetInfo()", code, err);
    (void)cudaDriverGetVersion(&driver);
    snprintf(info->name, sizeof(info->name), "cuda:%d", device->number);
    snprintf(info->description, sizeof(info->description),
             "%.60s, compute %d.%d, driver for CUDA %d.%d", properties.name, properties.major,
             properties.minor, driver / 1000, driver % 1000 / 10);
    info->memory_bytes = all_bytes;
    info->free_bytes = free_bytes;
    info->link_rate = find_link_rate(device->number);
    info->memory_rate = find_memory_rate(device->number);
    return 0;
}

static int cuda_open(struct device **out, unsigned number, struct error *err)
{
    char reason[160];
    unsigned count = gpu_cuda_count(reason, sizeof(reason));
    struct device *device;
    cudaError_t code;

    if (number >= count)
        return count ? error_set(err, ERR_USAGE, "there is no cuda:%u: the last GPU is cuda:%u",
                                 number, count - 1)
                     : error_set(err, ERR_USAGE, "cuda cannot be used: %s", reason);
    device = calloc(1, sizeof(*device));
    if (!device)
        return error_no_memory(err, "the device");
    device->number = (int)number;
    if (use(device, err))
        goto fail;
    code = (cudaError_t)kernels_load(); /* makes the context too */
    if (code == cudaErrorNoKernelImageForDevice) {
        error_set(err, ERR_USAGE, "cuda:%u is a GPU that this build has no kernels for", number);
        goto fail;
    }
    if (code != cudaSuccess) {
        failed(device, "loading the kernels", code, err);
        goto fail;
    }
    if (ask(device, err))
        goto fail;
    *out = device;
    return 0;
fail:
    free(device);
    return err->code;
}

static void close_stream(struct device_stream *stream)
{
    for (unsigned i = 0; i < DEVICE_MARKS; i++) {
        if (stream->marks[i])
            (void)cudaEventDestroy(stream->marks[i]);
    }
    if (stream->stream)
        (void)cudaStreamDestroy(stream->stream);
    free(stream);
}

/* Nothing is said of what fails: on a lost device everything does. */
static void cuda_close(struct device *device)
{
    if (!device)
        return;
    (void)cudaSetDevice(device->number);
    while (device->streams) {
        struct device_stream *stream = device->streams;

        device->streams = stream->next;
        (void)cudaStreamSynchronize(stream->stream);
        close_stream(stream);
    }
    while (device->memories) {
        struct memory *memory = device->memories;

        device->memories = memory->next;
        if (memory->kind == MEMORY_HOST)
            (void)cudaFreeHost(memory->bytes);
        else
            (void)cudaFree(memory->bytes);
        free(memory);
    }
    (void)cudaGetLastError();
    free(device);
}

static void cuda_describe(const struct device *device, struct device_info *out)
{
    *out = device->info;
}

static int take(struct device *device, void **out, size_t bytes, enum memory_kind kind,
                struct error *err)
{
    bool host = kind == MEMORY_HOST;
    struct memory *memory = calloc(1, sizeof(*memory));
    cudaError_t code;
    char call[64];

    if (!memory)
        return error_no_memory(err, "the memory of the device");
    if (use(device, err)) {
        free(memory);
        return err->code;
    }
    code = host ? cudaHostAlloc(&memory->bytes, bytes, cudaHostAllocPortable)
                : cudaMalloc(&memory->bytes, bytes);
    if (code != cudaSuccess) {
        free(memory);
        snprintf(call, sizeof(call), "%s of %zu bytes", host ? "cudaHostAlloc()" : "cudaMalloc()",
                 bytes);
        return failed(device, call, code, err);
    }
    memory->kind = kind;
    memory->next = device->memories;
    device->memories = memory;
    *out = memory->bytes;
    return 0;
}

static int cuda_take(struct device *device, void **memory, size_t bytes, struct error *err)
{
    return take(device, memory, bytes, MEMORY_DEVICE, err);
}

static int cuda_take_pinned(struct device *device, void **host, size_t bytes, struct error *err)
{
    return take(device, host, bytes, MEMORY_HOST, err);
}

static bool cuda_pin(struct device *device, void *host, size_t bytes)
{
    struct error ignored = { 0 };
    bool pinned = use(device, &ignored) == 0 &&
                  cudaHostRegister(host, bytes, cudaHostRegisterPortable) == cudaSuccess;

    if (!pinned)
        (void)cudaGetLastError();
    return pinned;
}

static void cuda_unpin(struct device *device, void *host)
{
    (void)cudaSetDevice(device->number);
    (void)cudaHostUnregister(host);
    (void)cudaGetLastError();
}

static int cuda_stream(struct device *device, struct device_stream **out, struct error *err)
{
    struct device_stream *stream = calloc(1, sizeof(*stream));
    cudaError_t code;

    if (!stream)
        return error_no_memory(err, "a stream");
    stream->device = device;
    stream->next = device->streams;
    device->streams = stream;
    if (use(device, err))
        return err->code;
    code = cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking);
    if (code != cudaSuccess)
        return failed(device, "cudaStreamCreateWithFlags()", code, err);
    for (unsigned i = 0; i < DEVICE_MARKS; i++) {
        code = cudaEventCreateWithFlags(&stream->marks[i], cudaEventBlockingSync);
        if (code != cudaSuccess)
            return failed(device, "cudaEventCreateWithFlags()", code, err);
    }
    *out = stream;
    return 0;
}

static int copy(struct device_stream *stream, void *to, const void *from, size_t bytes,
                enum cudaMemcpyKind kind, struct error *err)
{
    cudaError_t code;

    if (use(stream->device, err))
        return err->code;
    code = cudaMemcpyAsync(to, from, bytes, kind, stream->stream);
    if (code == cudaSuccess)
        return 0;
    return failed(stream->device,
                  kind == cudaMemcpyHostToDevice ? "cudaMemcpyAsync() to the device"
                                                 : "cudaMemcpyAsync() from the device",
                  code, err);
}

static int cuda_upload(struct device_stream *stream, void *memory, const void *host, size_t bytes,
                       struct error *err)
{
    return copy(stream, memory, host, bytes, cudaMemcpyHostToDevice, err);
}

static int cuda_download(struct device_stream *stream, void *host, const void *memory, size_t bytes,
                         struct error *err)
{
    return copy(stream, host, memory, bytes, cudaMemcpyDeviceToHost, err);
}

static int cuda_run(struct device_stream *stream, const struct device_task *task, struct error *err)
{
    static const char *const names[DEVICE_OP_COUNT] = {
        [DEVICE_FOLD] = "launching fold",
        [DEVICE_CONVERT] = "launching convert",
        [DEVICE_PANEL_SUM] = "launching panel_sum",
        [DEVICE_ADD_SCALED] = "launching add_scaled",
        [DEVICE_ADD_SQUARES] = "launching add_squares",
        [DEVICE_ADD_SQUARES_EACH] = "launching add_squares_each",
        [DEVICE_SCALE_ROWS] = "launching scale_rows",
        [DEVICE_SCALE_COLS] = "launching scale_cols",
        [DEVICE_DORA_ROWS] = "launching dora_rows",
        [DEVICE_DECODE] = "launching decode",
        [DEVICE_ABSMAX] = "launching absmax",
        [DEVICE_BNB4] = "launching bnb4",
        [DEVICE_ROUND_TRIP] = "launching round_trip",
        [DEVICE_SCALED] = "launching scaled",
    };
    cudaError_t code;

    if (use(stream->device, err))
        return err->code;
    code = (cudaError_t)kernels_launch(task, stream->stream);
    return code == cudaSuccess ? 0 : failed(stream->device, names[task->op], code, err);
}

static int cuda_mark(struct device_stream *stream, unsigned mark, struct error *err)
{
    cudaError_t code;

    if (use(stream->device, err))
        return err->code;
    code = cudaEventRecord(stream->marks[mark], stream->stream);
    return code == cudaSuccess ? 0 : failed(stream->device, "cudaEventRecord()", code, err);
}

static int cuda_wait(struct device_stream *stream, unsigned mark, struct error *err)
{
    cudaError_t code;

    if (use(stream->device, err))
        return err->code;
    code = cudaEventSynchronize(stream->marks[mark]);
    return code == cudaSuccess
               ? 0
               : failed(stream->device, "cudaEventSynchronize(), or what it waited for,", code,
                        err);
}

static double cuda_seconds(struct device_stream *stream, unsigned from, unsigned to)
{
    float milliseconds = 0;

    if (cudaEventElapsedTime(&milliseconds, stream->marks[from], stream->marks[to]) != cudaSuccess)
        (void)cudaGetLastError();
    return (double)milliseconds / 1000;
}

const struct device_ops gpu_cuda = {
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .take = cuda_take,
    .take_pinned = cuda_take_pinned,
    .pin = cuda_pin,
    .unpin = cuda_unpin,
    .stream = cuda_stream,
    .upload = cuda_upload,
    .download = cuda_download,
    .run = cuda_run,
    .mark = cuda_mark,
    .wait = cuda_wait,
    .seconds = cuda_seconds,
};

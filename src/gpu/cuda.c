/*
 * cuda.c - the CUDA device: the runtime library, linked statically, finds the driver when it is
 * first called
 *
 * Work is only ever put into streams of its own, which do not wait for the default stream.  Events
 * make a waiting host sleep.
 *
 * Which device a thread works with is the driver's knowledge: its current context, which every copy
 * of the runtime in a process goes by.  A caller's thread may have one of its own (PyTorch's), so
 * each function here puts back what it found.  By the driver's function, since cudaSetDevice()
 * would make a context on a device that nobody has used yet.
 */
#include "gpu/gpu.h"
#include "gpu/kernels.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
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

/* A CUcontext, and a CUresult; the driver's header is not needed for these two. */
typedef int (*get_context)(void **context);
typedef int (*set_context)(void *context);

struct device {
    int number;
    get_context get_context;
    set_context set_context;
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

/* Make the device that of the calling thread, and remember what was; leave() in any case. */
static int enter(const struct device *device, void **before, struct error *err)
{
    cudaError_t code;

    *before = NULL;
    (void)device->get_context(before); /* a driver that cannot say this cannot do what follows */
    code = cudaSetDevice(device->number);
    return code == cudaSuccess ? 0 : failed(device, "cudaSetDevice()", code, err);
}

static void leave(const struct device *device, void *before)
{
    (void)device->set_context(before);
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

    if (cudaDeviceGetPCIBusId(bus, sizeof(bus), number) != cudaSuccess) {
        (void)cudaGetLastError(); /* nothing failed that has to be done */
        return 0;
    }
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

/* The driver is loaded: the runtime has counted its devices. */
static int find_driver(struct device *device, struct error *err)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

    if (driver) {
        *(void **)&device->get_context = dlsym(driver, "cuCtxGetCurrent");
        *(void **)&device->set_context = dlsym(driver, "cuCtxSetCurrent");
        dlclose(driver); /* the runtime keeps it */
    }
    if (!device->get_context || !device->set_context)
        return error_set(err, ERR_USAGE,
                         "cuda cannot be used: the NVIDIA driver (libcuda.so.1) has no "
                         "cuCtxGetCurrent() or no cuCtxSetCurrent()");
    return 0;
}

/* The first use of a device by a process makes a context there. */
static int start(struct device *device, struct error *err)
{
    cudaError_t code = (cudaError_t)kernels_load();

    if (code == cudaErrorNoKernelImageForDevice)
        return error_set(err, ERR_USAGE, "cuda:%d is a GPU that this build has no kernels for",
                         device->number);
    if (code != cudaSuccess)
        return failed(device, "loading the kernels", code, err);
    return ask(device, err);
}

static int cuda_open(struct device **out, unsigned number, struct error *err)
{
    char reason[160];
    unsigned count = gpu_cuda_count(reason, sizeof(reason));
    struct device *device;
    void *before;
    int status;

    if (number >= count)
        return count ? error_set(err, ERR_USAGE, "there is no cuda:%u: the last GPU is cuda:%u",
                                 number, count - 1)
                     : error_set(err, ERR_USAGE, "cuda cannot be used: %s", reason);
    device = calloc(1, sizeof(*device));
    if (!device)
        return error_no_memory(err, "the device");
    device->number = (int)number;
    status = find_driver(device, err);
    if (!status) {
        status = enter(device, &before, err);
        if (!status)
            status = start(device, err);
        leave(device, before);
    }
    if (status)
        free(device);
    else
        *out = device;
    return status;
}

static void close_stream(struct device_stream *stream)
{
    for (unsigned i = 0; i < DEVICE_MARKS; i++) {
        if (stream->marks[i])
            (void)cudaEventDestroy(stream->marks[i]);
    }
    if (stream->stream) {
        (void)cudaStreamSynchronize(stream->stream);
        (void)cudaStreamDestroy(stream->stream);
    }
    free(stream);
}

/* Nothing is said of what fails: on a lost device everything does. */
static void cuda_close(struct device *device)
{
    struct error ignored = { 0 };
    void *before;

    if (!device)
        return;
    (void)enter(device, &before, &ignored);
    while (device->streams) {
        struct device_stream *stream = device->streams;

        device->streams = stream->next;
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
    leave(device, before);
    free(device);
}

static void cuda_describe(const struct device *device, struct device_info *out)
{
    *out = device->info;
}

static int take_now(struct device *device, struct memory *memory, size_t bytes, struct error *err)
{
    bool host = memory->kind == MEMORY_HOST;
    cudaError_t code = host ? cudaHostAlloc(&memory->bytes, bytes, cudaHostAllocPortable)
                            : cudaMalloc(&memory->bytes, bytes);
    char call[64];

    if (code == cudaSuccess)
        return 0;
    snprintf(call, sizeof(call), "%s of %zu bytes", host ? "cudaHostAlloc()" : "cudaMalloc()",
             bytes);
    return failed(device, call, code, err);
}

static int take(struct device *device, void **out, size_t bytes, enum memory_kind kind,
                struct error *err)
{
    struct memory *memory = calloc(1, sizeof(*memory));
    void *before;
    int status;

    if (!memory)
        return error_no_memory(err, "the memory of the device");
    memory->kind = kind;
    status = enter(device, &before, err);
    if (!status)
        status = take_now(device, memory, bytes, err);
    leave(device, before);
    if (status) {
        free(memory);
        return status;
    }
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
    void *before;
    bool pinned = enter(device, &before, &ignored) == 0 &&
                  cudaHostRegister(host, bytes, cudaHostRegisterPortable) == cudaSuccess;

    if (!pinned)
        (void)cudaGetLastError();
    leave(device, before);
    return pinned;
}

static void cuda_unpin(struct device *device, void *host)
{
    struct error ignored = { 0 };
    void *before;

    (void)enter(device, &before, &ignored);
    (void)cudaHostUnregister(host);
    (void)cudaGetLastError();
    leave(device, before);
}

static int make_stream(struct device_stream *stream, struct error *err)
{
    cudaError_t code = cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking);

    if (code != cudaSuccess)
        return failed(stream->device, "cudaStreamCreateWithFlags()", code, err);
    for (unsigned i = 0; i < DEVICE_MARKS; i++) {
        code = cudaEventCreateWithFlags(&stream->marks[i], cudaEventBlockingSync);
        if (code != cudaSuccess)
            return failed(stream->device, "cudaEventCreateWithFlags()", code, err);
    }
    return 0;
}

static int cuda_stream(struct device *device, struct device_stream **out, struct error *err)
{
    struct device_stream *stream = calloc(1, sizeof(*stream));
    void *before;
    int status;

    if (!stream)
        return error_no_memory(err, "a stream");
    stream->device = device;
    stream->next = device->streams;
    device->streams = stream;
    status = enter(device, &before, err);
    if (!status)
        status = make_stream(stream, err);
    leave(device, before);
    if (!status)
        *out = stream;
    return status;
}

static int copy(struct device_stream *stream, void *to, const void *from, size_t bytes,
                enum cudaMemcpyKind kind, struct error *err)
{
    void *before;
    int status = enter(stream->device, &before, err);
    cudaError_t code;

    if (!status) {
        code = cudaMemcpyAsync(to, from, bytes, kind, stream->stream);
        if (code != cudaSuccess)
            status = failed(stream->device,
                            kind == cudaMemcpyHostToDevice ? "cudaMemcpyAsync() to the device"
                                                           : "cudaMemcpyAsync() from the device",
                            code, err);
    }
    leave(stream->device, before);
    return status;
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
        [DEVICE_SCALE_ROWS] = "launching scale_rows",
        [DEVICE_SCALE_COLS] = "launching scale_cols",
        [DEVICE_DORA_ROWS] = "launching dora_rows",
        [DEVICE_DECODE] = "launching decode",
        [DEVICE_BNB4] = "launching bnb4",
        [DEVICE_ROUND_TRIP] = "launching round_trip",
        [DEVICE_SCALED] = "launching scaled",
    };
    void *before;
    int status = enter(stream->device, &before, err);
    cudaError_t code;

    if (!status) {
        code = (cudaError_t)kernels_launch(task, stream->stream);
        if (code != cudaSuccess)
            status = failed(stream->device, names[task->op], code, err);
    }
    leave(stream->device, before);
    return status;
}

static int cuda_mark(struct device_stream *stream, unsigned mark, struct error *err)
{
    void *before;
    int status = enter(stream->device, &before, err);
    cudaError_t code;

    if (!status) {
        code = cudaEventRecord(stream->marks[mark], stream->stream);
        if (code != cudaSuccess)
            status = failed(stream->device, "cudaEventRecord()", code, err);
    }
    leave(stream->device, before);
    return status;
}

static int cuda_wait(struct device_stream *stream, unsigned mark, struct error *err)
{
    void *before;
    int status = enter(stream->device, &before, err);
    cudaError_t code;

    if (!status) {
        code = cudaEventSynchronize(stream->marks[mark]);
        if (code != cudaSuccess)
            status = failed(stream->device, "cudaEventSynchronize(), or what it waited for,", code,
                            err);
    }
    leave(stream->device, before);
    return status;
}

static double cuda_seconds(struct device_stream *stream, unsigned from, unsigned to)
{
    struct error ignored = { 0 };
    float milliseconds = 0;
    void *before;

    if (enter(stream->device, &before, &ignored) ||
        cudaEventElapsedTime(&milliseconds, stream->marks[from], stream->marks[to]) != cudaSuccess)
        (void)cudaGetLastError();
    leave(stream->device, before);
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

/*
 * What src/gpu/cuda.c asks of CUDA, with a runtime and a driver that are functions of this test: a
 * caller's thread keeps the device that it had, the n-th call fails for every n, and nothing that
 * was taken is left.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "check.h"
#include "gpu/gpu.h"
#include "gpu/kernels.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <string.h>

#define DEVICE 1u /* of two; the caller has the other one */
#define BYTES 4096u

static int contexts[2]; /* whose addresses are the driver's contexts */
static void *current = &contexts[0];
static unsigned calls;
static unsigned failing; /* the call that fails; 0: none */
static int held;         /* of everything that is given back */
static bool set_failed;
static int streams; /* that may be at work */
static bool waited; /* for the stream, before its memory is given back */

static bool fails(void)
{
    return ++calls == failing;
}

static cudaError_t answer(void)
{
    CHECK(set_failed || current == &contexts[DEVICE], "call %u is made with another device", calls);
    return fails() ? cudaErrorUnknown : cudaSuccess;
}

/* Of something new that the caller has to give back. */
static cudaError_t give(void **out)
{
    cudaError_t code = answer();

    if (code == cudaSuccess) {
        held++;
        *out = &held;
    }
    return code;
}

/* What fails to be given back is lost with its device. */
static cudaError_t take_back(void)
{
    held--;
    return answer();
}

/* ---- the driver ---- */

static int get_current(void **context)
{
    *context = current;
    return 0;
}

static int set_current(void *context)
{
    current = context;
    return 0;
}

void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlsym(void *library, const char *name);
int __wrap_dlclose(void *library);

void *__wrap_dlopen(const char *name, int flags)
{
    (void)flags;
    CHECK(strcmp(name, "libcuda.so.1") == 0, "%s", name);
    return fails() ? NULL : (held++, (void *)&held);
}

void *__wrap_dlsym(void *library, const char *name)
{
    int (*get)(void **) = get_current;
    int (*set)(void *) = set_current;
    void *found = NULL;

    CHECK(library == &held, "another library");
    if (fails())
        return NULL;
    if (strcmp(name, "cuCtxGetCurrent") == 0)
        memcpy(&found, &get, sizeof(found));
    if (strcmp(name, "cuCtxSetCurrent") == 0)
        memcpy(&found, &set, sizeof(found));
    return found;
}

int __wrap_dlclose(void *library)
{
    CHECK(library == &held, "another library");
    held--;
    return 0;
}

/* ---- the runtime ---- */

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 2;
    return fails() ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    CHECK(device == (int)DEVICE, "device %d", device);
    set_failed = fails();
    if (set_failed)
        return cudaErrorUnknown;
    current = &contexts[device];
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t code)
{
    return code == cudaSuccess ? "no error" : "as the test asks";
}

const char *cudaGetErrorName(cudaError_t code)
{
    return code == cudaSuccess ? "cudaSuccess" : "cudaErrorUnknown";
}

cudaError_t cudaDeviceGetPCIBusId(char *bus, int bytes, int device)
{
    snprintf(bus, (size_t)bytes, "0000:%02X:00.0", 0xab + device);
    return answer();
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    (void)attribute;
    *value = 1000 + device;
    return answer();
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    memset(properties, 0, sizeof(*properties));
    snprintf(properties->name, sizeof(properties->name), "GPU %d", device);
    return answer();
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *bytes)
{
    *free_bytes = 3 << 20;
    *bytes = 4 << 20;
    return answer();
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return answer();
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    CHECK(bytes == BYTES, "%zu bytes", bytes);
    return give(memory);
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    CHECK(bytes == BYTES && flags == cudaHostAllocPortable, "%zu bytes", bytes);
    return give(memory);
}

cudaError_t cudaFree(void *memory)
{
    (void)memory;
    CHECK(streams == 0, "memory of a stream that may be at work");
    return take_back();
}

cudaError_t cudaFreeHost(void *memory)
{
    (void)memory;
    CHECK(streams == 0, "memory of a stream that may be at work");
    return take_back();
}

cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned flags)
{
    (void)memory;
    CHECK(bytes == BYTES && flags == cudaHostRegisterPortable, "%zu bytes", bytes);
    return answer() == cudaSuccess ? (held++, cudaSuccess) : cudaErrorUnknown;
}

cudaError_t cudaHostUnregister(void *memory)
{
    (void)memory;
    return take_back();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    cudaError_t code = give((void **)stream);

    CHECK(flags == cudaStreamNonBlocking, "a stream that waits for the default one");
    streams += code == cudaSuccess;
    return code;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    CHECK(stream, "the default stream");
    waited = true;
    return answer();
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    CHECK(stream && waited, "a stream that may be at work");
    streams--;
    return take_back();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    CHECK(flags == cudaEventBlockingSync, "a host that burns while it waits");
    return give((void **)event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    (void)event;
    return take_back();
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    CHECK(to && from && bytes == BYTES && stream, "a copy of %zu bytes", bytes);
    CHECK(kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToHost, "kind %d", (int)kind);
    return answer();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    CHECK(event && stream, "the default stream");
    return answer();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    CHECK(event, "no event");
    return answer();
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    CHECK(from && to, "no event");
    *milliseconds = 250;
    return answer();
}

int kernels_load(void)
{
    return (int)answer();
}

int kernels_launch(const struct device_task *task, void *stream)
{
    CHECK(task->op == DEVICE_CONVERT && stream, "the default stream");
    return (int)answer();
}

/* ---- what a merge does ---- */

static void check_error(int status, const struct error *err)
{
    CHECK(current == &contexts[0], "call %u: the caller has another device now", failing);
    CHECK(status == 0 || (status == err->code && strstr(err->text, "cuda")), "'%s'", err->text);
    CHECK(status == 0 || failing, "%s", err->text);
}

static int work(struct device *device, struct error *err)
{
    struct device_task task = { .op = DEVICE_CONVERT };
    struct device_stream *stream;
    unsigned char host[BYTES];
    void *memory;
    void *pinned;
    int status = gpu_cuda.take(device, &memory, BYTES, err);
    bool is_pinned;

    check_error(status, err);
    if (status || (status = gpu_cuda.take_pinned(device, &pinned, BYTES, err)))
        return status;
    check_error(status, err);
    is_pinned = gpu_cuda.pin(device, host, BYTES);
    CHECK(is_pinned || failing, "the pages are not pinned");
    check_error(0, err);
    status = gpu_cuda.stream(device, &stream, err);
    check_error(status, err);
    if (!status)
        status = gpu_cuda.upload(stream, memory, host, BYTES, err);
    check_error(status, err);
    if (!status)
        status = gpu_cuda.mark(stream, 0, err);
    check_error(status, err);
    if (!status)
        status = gpu_cuda.run(stream, &task, err);
    check_error(status, err);
    if (!status)
        status = gpu_cuda.download(stream, host, memory, BYTES, err);
    if (!status)
        status = gpu_cuda.mark(stream, 1, err);
    if (!status)
        status = gpu_cuda.wait(stream, 1, err);
    check_error(status, err);
    if (!status)
        CHECK(gpu_cuda.seconds(stream, 0, 1) == 0.25 || failing, "a quarter of a second");
    check_error(status, err);
    if (is_pinned)
        gpu_cuda.unpin(device, host);
    check_error(status, err);
    return status;
}

/* Returns how many calls there were. */
static unsigned check(unsigned number)
{
    struct error err = { 0 };
    struct device *device = NULL;
    struct device_info info;
    int status;

    calls = 0;
    failing = number;
    held = streams = 0;
    set_failed = waited = false;
    status = gpu_cuda.open(&device, DEVICE, &err);
    check_error(status, &err);
    CHECK(!status == !!device, "a device or an error");
    if (device) {
        gpu_cuda.describe(device, &info);
        CHECK(strcmp(info.name, "cuda:1") == 0 && info.free_bytes == 3 << 20, "%s", info.name);
        work(device, &err);
    }
    gpu_cuda.close(device);
    check_error(0, &err);
    CHECK(held == 0, "call %u fails: %d things are left", number, held);
    return calls;
}

int main(void)
{
    struct error err = { 0 };
    struct device *device;
    const unsigned all = check(0);

    CHECK(all > 100, "%u calls", all);
    for (unsigned number = 1; number <= all; number++)
        check(number);
    failing = 0;
    CHECK(gpu_cuda.open(&device, 2, &err) == ERR_USAGE &&
              strcmp(err.text, "there is no cuda:2: the last GPU is cuda:1") == 0,
          "%s", err.text);
    printf("%u calls failed in turn\n", all);
    return 0;
}

/*
 * body.h - one source for a kernel and for its simulation on the host
 *
 * A body is a function that does the work of one block of threads.  It consists of phases: a phase
 * is run by all threads of the block, and ends when all have come to its end.
 *
 *     GPU_MINE(struct mine, m, THREADS);            variables of each thread
 *     GPU_PHASE (thread, THREADS) { ... GPU_OF(m, thread) ... }
 *
 * On the device a phase is the code of this thread and a barrier, and variables of a thread are
 * registers.  On the host it is a loop over the threads, in the order that gpu_host_order says;
 * their variables are arrays.  Threads of a block share a struct, which a body gets uninitialised.
 * Within a phase a thread must not read what another writes; the result then is the same in
 * whatever order they run, which the tests try.  All threads of a block take the same phases.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_BODY_H
#define GPU_BODY_H

#include "compute/convert.h"
#include "compute/device_task.h"
#include "compute/element.h"

#if ROUNDED_ON_DEVICE
#define GPU_PHASE(thread, threads)                                                                 \
    for (unsigned thread = threadIdx.x, gpu_once = 1; gpu_once; gpu_once = 0, __syncthreads())
#define GPU_MINE(type, name, threads) type name[1]
#define GPU_OF(name, thread) (name)[0 * (thread)]
#define GPU_UNROLL _Pragma("unroll")
#define GPU_UNROLL_BY_4 _Pragma("unroll 4")
#define GPU_UNROLL_BY_8 _Pragma("unroll 8")
#define GPU_UNROLL_NEVER _Pragma("unroll 1")
#else
/* Threads run in ascending order of thread ^ gpu_host_order; less than the threads of any block. */
extern __thread unsigned gpu_host_order;
#define GPU_PHASE(thread, threads)                                                                 \
    for (unsigned gpu_i = 0, thread = gpu_host_order; gpu_i < (threads);                           \
         thread = ++gpu_i ^ gpu_host_order)
#define GPU_MINE(type, name, threads) type name[threads]
#define GPU_OF(name, thread) (name)[thread]
#define GPU_UNROLL
#define GPU_UNROLL_BY_4
#define GPU_UNROLL_BY_8
#define GPU_UNROLL_NEVER
#endif

/* Threads of every block: enough warps to hide each other's waits, few enough for many registers.
 */
#define GPU_THREADS 128u
/* Consecutive elements that a thread reads and writes at once: 16 bytes of BF16 or F16. */
#define GPU_EIGHT 8u

/* An aligned piece of memory that is moved as one. */
struct gpu_floats {
    float lane[4];
};

COMPUTE_SHARED uint64_t gpu_ceil(uint64_t value, uint64_t unit)
{
    return value / unit + (value % unit != 0);
}

COMPUTE_SHARED unsigned gpu_lesser(uint64_t x, unsigned limit)
{
    return x < limit ? (unsigned)x : limit;
}

/* A device stops at a load or store of a vector at another address; the host would not. */
COMPUTE_SHARED void gpu_must_align(const void *address, unsigned alignment)
{
#if !ROUNDED_ON_DEVICE
    if ((uintptr_t)address % alignment)
        __builtin_trap();
#endif
    (void)address;
    (void)alignment;
}

/* Four floats at an address that is a multiple of 16. */
COMPUTE_SHARED struct gpu_floats gpu_load_floats(const float *src)
{
    struct gpu_floats value;

    gpu_must_align(src, 16);
#if ROUNDED_ON_DEVICE
    const float4 wide = *reinterpret_cast<const float4 *>(src);

    value.lane[0] = wide.x;
    value.lane[1] = wide.y;
    value.lane[2] = wide.z;
    value.lane[3] = wide.w;
#else
    memcpy(&value, src, sizeof(value));
#endif
    return value;
}

COMPUTE_SHARED void gpu_store_floats(float *dst, struct gpu_floats value)
{
    gpu_must_align(dst, 16);
#if ROUNDED_ON_DEVICE
    *reinterpret_cast<float4 *>(dst) = make_float4(value.lane[0], value.lane[1], value.lane[2],
                                                   value.lane[3]);
#else
    memcpy(dst, &value, sizeof(value));
#endif
}

/* `count` (4 or 8) words from an address that is a multiple of `alignment`, 4, 8 or 16. */
COMPUTE_SHARED void gpu_load_words(uint32_t *words, const unsigned char *src, unsigned count,
                                   unsigned alignment)
{
#if ROUNDED_ON_DEVICE
    GPU_UNROLL
    for (unsigned i = 0; i < count; i += 4) {
        if (alignment == 16) {
            const uint4 wide = *reinterpret_cast<const uint4 *>(src + i * 4);

            words[i] = wide.x;
            words[i + 1] = wide.y;
            words[i + 2] = wide.z;
            words[i + 3] = wide.w;
        } else if (alignment == 8) {
            const uint2 low = *reinterpret_cast<const uint2 *>(src + i * 4);
            const uint2 high = *reinterpret_cast<const uint2 *>(src + i * 4 + 8);

            words[i] = low.x;
            words[i + 1] = low.y;
            words[i + 2] = high.x;
            words[i + 3] = high.y;
        } else {
            GPU_UNROLL
            for (unsigned k = 0; k < 4; k++)
                words[i + k] = *reinterpret_cast<const uint32_t *>(src + (i + k) * 4);
        }
    }
#else
    gpu_must_align(src, alignment);
    memcpy(words, src, count * sizeof(*words));
#endif
}

COMPUTE_SHARED void gpu_store_words(unsigned char *dst, const uint32_t *words, unsigned count,
                                    unsigned alignment)
{
#if ROUNDED_ON_DEVICE
    GPU_UNROLL
    for (unsigned i = 0; i < count; i += 4) {
        if (alignment == 16) {
            *reinterpret_cast<uint4 *>(dst + i * 4) = make_uint4(words[i], words[i + 1],
                                                                 words[i + 2], words[i + 3]);
        } else if (alignment == 8) {
            *reinterpret_cast<uint2 *>(dst + i * 4) = make_uint2(words[i], words[i + 1]);
            *reinterpret_cast<uint2 *>(dst + i * 4 + 8) = make_uint2(words[i + 2], words[i + 3]);
        } else {
            GPU_UNROLL
            for (unsigned k = 0; k < 4; k++)
                *reinterpret_cast<uint32_t *>(dst + (i + k) * 4) = words[i + k];
        }
    }
#else
    gpu_must_align(dst, alignment);
    memcpy(dst, words, count * sizeof(*words));
#endif
}

/* The largest of 16, 8 and 4 that divides numbers of which `all` is the or; 0: none. */
COMPUTE_SHARED unsigned gpu_alignment(unsigned all)
{
    if ((all & 15u) == 0)
        return 16;
    if ((all & 7u) == 0)
        return 8;
    return (all & 3u) == 0 ? 4 : 0;
}

/* What was found at `index` is not finite: `bits` as fp32, or anything with its sign and kind. */
COMPUTE_SHARED void gpu_report(uint64_t *bad, uint64_t index, uint32_t bits)
{
    uint64_t word = index * 4 + ((bits & F32_MAGNITUDE) > F32_INFINITY ? DEVICE_BAD_NAN
                                 : bits >> 31                          ? DEVICE_BAD_MINUS_INFINITY
                                                                       : DEVICE_BAD_INFINITY);

    if (!bad)
        return;
#if ROUNDED_ON_DEVICE
    atomicMin(reinterpret_cast<unsigned long long *>(bad), (unsigned long long)word);
#else
    if (word < *bad)
        *bad = word;
#endif
}

#endif

/*
 * rounded.h - single operations of IEEE 754, in functions for the host and a device alike
 *
 * What defines a result in scalar code is written once, in headers whose functions are
 * COMPUTE_SHARED: C on the host, and __host__ __device__ where nvcc compiles them.  They do
 * arithmetic through the functions below, so that no compiler can fuse two of them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef COMPUTE_ROUNDED_H
#define COMPUTE_ROUNDED_H

#include <math.h>

#ifdef __CUDACC__
#define COMPUTE_SHARED static __host__ __device__ __forceinline__
#else
#define COMPUTE_SHARED static inline
#endif

#ifdef __CUDA_ARCH__
#define ROUNDED_ON_DEVICE 1
#else
#define ROUNDED_ON_DEVICE 0
#endif

COMPUTE_SHARED float f32_add(float x, float y)
{
#if ROUNDED_ON_DEVICE
    return __fadd_rn(x, y);
#else
    return x + y;
#endif
}

COMPUTE_SHARED float f32_sub(float x, float y)
{
#if ROUNDED_ON_DEVICE
    return __fsub_rn(x, y);
#else
    return x - y;
#endif
}

/* The volatile keeps a compiler for the host from fusing the product with a sum. */
COMPUTE_SHARED float f32_mul(float x, float y)
{
#if ROUNDED_ON_DEVICE
    return __fmul_rn(x, y);
#else
    volatile float product = x * y;

    return product;
#endif
}

COMPUTE_SHARED float f32_div(float x, float y)
{
#if ROUNDED_ON_DEVICE
    return __fdiv_rn(x, y);
#else
    return x / y;
#endif
}

/* x * y + z */
COMPUTE_SHARED float f32_fma(float x, float y, float z)
{
#if ROUNDED_ON_DEVICE
    return __fmaf_rn(x, y, z);
#else
    return fmaf(x, y, z);
#endif
}

COMPUTE_SHARED double f64_add(double x, double y)
{
#if ROUNDED_ON_DEVICE
    return __dadd_rn(x, y);
#else
    return x + y;
#endif
}

/* sum + x * x; the product of two fp32 numbers is exact in double, so that fusing changes nothing.
 */
COMPUTE_SHARED double f64_add_square(double sum, float x)
{
#if ROUNDED_ON_DEVICE
    return __fma_rn((double)x, (double)x, sum);
#else
    return sum + (double)x * (double)x;
#endif
}

COMPUTE_SHARED double f64_sqrt(double x)
{
#if ROUNDED_ON_DEVICE
    return __dsqrt_rn(x);
#else
    return sqrt(x);
#endif
}

#endif

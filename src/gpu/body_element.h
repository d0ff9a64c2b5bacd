/*
 * body_element.h - eight consecutive elements of BF16, F16 or F32, between memory and registers
 *
 * The fast way knows nothing of NaN: processors have canonical ones of their own.  Where an element
 * that was stored is not finite, gpu_mend() looks at what is in memory again.  The uniform
 * choices of dtype and alignment cost a few instructions for eight elements, so that no kernel
 * needs a version for each.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_BODY_ELEMENT_H
#define GPU_BODY_ELEMENT_H

#include "gpu/body.h"

/* Two halves, the lower one first. */
COMPUTE_SHARED uint32_t gpu_two_bf16(float first, float second)
{
#if ROUNDED_ON_DEVICE && __CUDA_ARCH__ >= 800
    uint32_t pair; /* to nearest even, subnormals kept; a NaN is 7fff */

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return bf16_encode(f32_bits(first)) | (uint32_t)bf16_encode(f32_bits(second)) << 16;
#endif
}

COMPUTE_SHARED uint32_t gpu_one_f16(float value)
{
#if ROUNDED_ON_DEVICE
    unsigned short half;

    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
#else
    return f16_encode(f32_bits(value));
#endif
}

/* A NaN becomes another one. */
COMPUTE_SHARED float gpu_widen_f16(uint32_t half)
{
#if ROUNDED_ON_DEVICE
    float value;

    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((unsigned short)half));
    return value;
#else
    return f32_from_bits(f16_decode((uint16_t)half));
#endif
}

/* As they lie in memory; F32 takes all words, the others four. */
struct gpu_eight {
    uint32_t words[GPU_EIGHT];
};

/* At an address that is a multiple of `alignment`, 4, 8 or 16. */
COMPUTE_SHARED void gpu_load_eight(struct gpu_eight *eight, const unsigned char *src,
                                   enum dtype dtype, unsigned alignment)
{
    gpu_load_words(eight->words, src, 4, alignment);
    if (dtype == DTYPE_F32)
        gpu_load_words(eight->words + 4, src + 16, 4, alignment);
}

COMPUTE_SHARED void gpu_widen_eight(float w[GPU_EIGHT], const struct gpu_eight *eight,
                                    enum dtype dtype)
{
    if (dtype == DTYPE_F32) {
        GPU_UNROLL
        for (unsigned i = 0; i < GPU_EIGHT; i++)
            w[i] = f32_from_bits(eight->words[i]);
        return;
    }
    if (dtype == DTYPE_BF16) {
        GPU_UNROLL
        for (unsigned i = 0; i < GPU_EIGHT; i += 2) {
            w[i] = f32_from_bits(eight->words[i / 2] << 16);
            w[i + 1] = f32_from_bits(eight->words[i / 2] & 0xffff0000u);
        }
        return;
    }
    GPU_UNROLL
    for (unsigned i = 0; i < GPU_EIGHT; i += 2) {
        w[i] = gpu_widen_f16(eight->words[i / 2] & 0xffffu);
        w[i + 1] = gpu_widen_f16(eight->words[i / 2] >> 16);
    }
}

/* The exponent field of all ones carries into the sign, which is taken away before. */
COMPUTE_SHARED uint32_t gpu_find_nonfinite(uint32_t found, uint32_t word, enum dtype dtype)
{
    if (dtype == DTYPE_F32)
        return found | ((word & F32_MAGNITUDE) + 0x00800000u);
    return found | ((word & 0x7fff7fffu) + (dtype == DTYPE_BF16 ? 0x00800080u : 0x04000400u));
}

#define GPU_NONFINITE 0x80008000u /* of what was found; of F32 the upper half alone */

/* Rounded, into words.  Returns whether all are finite. */
COMPUTE_SHARED bool gpu_round_eight(struct gpu_eight *eight, const float w[GPU_EIGHT],
                                    enum dtype dtype)
{
    uint32_t found = 0;

    if (dtype == DTYPE_F32) {
        GPU_UNROLL
        for (unsigned i = 0; i < GPU_EIGHT; i++) {
            eight->words[i] = f32_bits(w[i]);
            found = gpu_find_nonfinite(found, eight->words[i], DTYPE_F32);
        }
        return found >> 31 == 0;
    }
    if (dtype == DTYPE_BF16) {
        GPU_UNROLL
        for (unsigned i = 0; i < GPU_EIGHT; i += 2) {
            eight->words[i / 2] = gpu_two_bf16(w[i], w[i + 1]);
            found = gpu_find_nonfinite(found, eight->words[i / 2], DTYPE_BF16);
        }
        return (found & GPU_NONFINITE) == 0;
    }
    GPU_UNROLL
    for (unsigned i = 0; i < GPU_EIGHT; i += 2) {
        eight->words[i / 2] = gpu_one_f16(w[i]) | gpu_one_f16(w[i + 1]) << 16;
        found = gpu_find_nonfinite(found, eight->words[i / 2], DTYPE_F16);
    }
    return (found & GPU_NONFINITE) == 0;
}

COMPUTE_SHARED void gpu_store_eight(unsigned char *dst, const struct gpu_eight *eight,
                                    enum dtype dtype, unsigned alignment)
{
    gpu_store_words(dst, eight->words, 4, alignment);
    if (dtype == DTYPE_F32)
        gpu_store_words(dst + 16, eight->words + 4, 4, alignment);
}

/*
 * `count` elements that this thread has stored, number `index` and on: each NaN as the canonical
 * one, and what is not finite is reported.
 */
COMPUTE_SHARED void gpu_mend(unsigned char *dst, enum dtype dtype, unsigned count, uint64_t index,
                             uint64_t *bad)
{
    const unsigned bytes = element_bytes(dtype);

    GPU_UNROLL_NEVER
    for (unsigned i = 0; i < count; i++) {
        uint32_t bits = element_load(dst + i * bytes, dtype);

        if (!element_store(dst + i * bytes, dtype, bits))
            gpu_report(bad, index + i, bits);
    }
}

/* One of eight, chosen without an array that is indexed at run time, which would lie in memory. */
COMPUTE_SHARED float gpu_pick(const float w[GPU_EIGHT], unsigned index)
{
    float picked = w[0];

    GPU_UNROLL
    for (unsigned i = 1; i < GPU_EIGHT; i++)
        picked = index == i ? w[i] : picked;
    return picked;
}

#endif

/*
 * fold.c - what every table of fold operations shares
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/fold.h"

#include "compute/element.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif !defined(__aarch64__)
#include <fenv.h>
#endif

void fold_pack_row(float *packed, uint64_t rank, uint64_t k, const float *row, uint64_t cols)
{
    for (uint64_t col = 0; col < cols; col += FOLD_GROUP) {
        float *group = packed + (col / FOLD_GROUP * rank + k) * FOLD_GROUP;
        uint64_t left = cols - col;

        for (uint64_t i = 0; i < FOLD_GROUP; i++)
            group[i] = i < left ? row[col + i] : 0.0f;
    }
}

float fold_root(double squares)
{
    return element_root(squares);
}

float fold_norm(const double lanes[FOLD_LANES])
{
    double sums[FOLD_LANES];

    memcpy(sums, lanes, sizeof(sums));
    for (unsigned half = FOLD_LANES / 2; half; half /= 2) {
        for (unsigned l = 0; l < half; l++)
            sums[l] += sums[l + half];
    }
    return fold_root(sums[0]);
}

float fold_dora_factor(float magnitude, float norm)
{
    return element_dora_factor(magnitude, norm);
}

#if defined(__x86_64__)

/* All exceptions masked, round to nearest, no flush to zero, no denormals as zero. */
#define MXCSR_DEFAULT 0x1f80u

void fold_environment_enter(struct fold_environment *environment)
{
    *environment = (struct fold_environment){ .saved = { _mm_getcsr() } };
    _mm_setcsr(MXCSR_DEFAULT);
}

void fold_environment_leave(const struct fold_environment *environment)
{
    _mm_setcsr((uint32_t)environment->saved[0]);
}

#elif defined(__aarch64__)

void fold_environment_enter(struct fold_environment *environment)
{
    uint64_t fpcr;

    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr) : : "memory");
    *environment = (struct fold_environment){ .saved = { fpcr } };
    fpcr = 0; /* nearest, IEEE half precision, no flush to zero, no traps */
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr) : "memory");
}

void fold_environment_leave(const struct fold_environment *environment)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(environment->saved[0]) : "memory");
}

#else

void fold_environment_enter(struct fold_environment *environment)
{
    *environment = (struct fold_environment){ .saved = { (uint64_t)fegetround() } };
    fesetround(FE_TONEAREST);
}

void fold_environment_leave(const struct fold_environment *environment)
{
    fesetround((int)environment->saved[0]);
}

#endif

/*
 * Scales that a base's own scheme keeps or gets, against numbers worked out by hand and against
 * what they are for: every element within half a step of a code.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/encode.h"
#include "kernel/kernel_check.h"

#include <float.h>
#include <math.h>

#define DRAWS 20000u

static const struct quant_matrix fp8 = { .codes = QUANT_E4M3, .scale_dtype = DTYPE_F32 };
static const struct quant_matrix fp8_bf16 = { .codes = QUANT_E4M3, .scale_dtype = DTYPE_BF16 };
static const struct quant_matrix fp8_f16 = { .codes = QUANT_E4M3, .scale_dtype = DTYPE_F16 };
static const struct quant_matrix fp8_e8m0 = { .codes = QUANT_E4M3, .scale_dtype = DTYPE_F8_E8M0 };
static const struct quant_matrix mxfp4 = { .codes = QUANT_E2M1, .scale_dtype = DTYPE_F8_E8M0 };
static const struct quant_matrix nvfp4 = { .codes = QUANT_E2M1,
                                           .scale_dtype = DTYPE_F8_E4M3,
                                           .scale = QUANT_SCALE_TIMES_WHOLE };
static const struct quant_matrix int8 = { .codes = QUANT_SIGNED, .scale_dtype = DTYPE_F32 };
static const struct quant_matrix int8_bf16 = { .codes = QUANT_SIGNED, .scale_dtype = DTYPE_BF16 };
static const struct quant_matrix rows = { .codes = QUANT_SIGNED,
                                          .scale_dtype = DTYPE_F32,
                                          .scale = QUANT_SCALE_ROW_127 };

/* The step that is kept or made of a base of four bytes, of which the scale takes what it needs. */
static float step_of(const struct quant_matrix *matrix, uint32_t base, float amax)
{
    uint8_t stored[4], out[4] = { 0 };

    for (unsigned i = 0; i < 4; i++)
        stored[i] = (uint8_t)(base >> 8 * i);
    CHECK(encode_keep(out, stored, amax, matrix, 1.0f), "a scale for %g", (double)amax);
    return encode_step(out, matrix, 1.0f);
}

static void check_fp8(void)
{
    CHECK(step_of(&fp8, f32_bits(0.3f), 448.0f * 0.3f) == 0.3f, "kept");
    CHECK(step_of(&fp8, f32_bits(0.3f), 448.0f) == 1.0f, "a new one");
    CHECK(step_of(&fp8, f32_bits(0.5f), 300.0f) == 1.0f, "a power of two stays one");
    CHECK(step_of(&fp8, f32_bits(0.3f), 0.0f) == 0.3f, "zeros");
    CHECK(step_of(&fp8, f32_bits(-0.3f), 448.0f) == 1.0f, "a negative one is not kept");
    CHECK(step_of(&fp8, f32_bits(NAN), 448.0f) == 1.0f, "a NaN is not kept");
    CHECK(step_of(&fp8, f32_bits(0.3f), INFINITY) < INFINITY, "what is infinite is limited");
    CHECK(step_of(&fp8_bf16, 0x3f80, 448.0f) == 1.0f, "BF16, kept");
    CHECK(f32_bits(step_of(&fp8_bf16, 0x3a80, 1.0f)) == 0x3b120000, "BF16, a new one");
    CHECK(step_of(&fp8_f16, 0x3c00, 448.0f) == 1.0f, "F16, kept");
    CHECK(step_of(&fp8_e8m0, 127, 448.0f) == 1.0f, "E8M0, kept");
    CHECK(step_of(&fp8_e8m0, 127, 449.0f) == 2.0f, "E8M0, a new one");
    CHECK(step_of(&fp8_e8m0, 0, 0.0f) == 0x1p-127f, "the least E8M0");
    CHECK(step_of(&fp8_e8m0, 255, 448.0f) == 1.0f, "a NaN of E8M0 is not kept");
}

static void check_fp4(void)
{
    uint8_t out, base = 0x38; /* 1 */

    CHECK(step_of(&mxfp4, 127, 7.0f) == 1.0f, "MXFP4, half a step above 6");
    CHECK(step_of(&mxfp4, 127, 7.01f) == 2.0f && step_of(&mxfp4, 127, 14.01f) == 4.0f, "more");
    CHECK(step_of(&mxfp4, 254, FLT_MAX) == 0x1p127f, "the largest");
    CHECK(step_of(&mxfp4, 130, 1.0f) == 8.0f, "kept");
    CHECK(step_of(&nvfp4, 0x38, 6.0f) == 1.0f && step_of(&nvfp4, 0x38, 12.0f) == 2.0f, "NVFP4");
    CHECK(step_of(&nvfp4, 0x01, 8.0f * 0x1p-9f) == 2 * 0x1p-9f, "nearest is too small");
    CHECK(encode_keep(&out, &base, 7.0f * 448.0f, &nvfp4, 1.0f) && out == 0x7e, "the largest");
    CHECK(!encode_keep(&out, &base, 7.1f * 448.0f, &nvfp4, 1.0f), "beyond its reach");
}

static void check_integers(void)
{
    const float src[8] = { 0.0f, 0.5f, 1.5f, -2.5f, 126.6f, -127.6f, 1000.0f, NAN };
    const int8_t expected[8] = { 0, 0, 2, -2, 127, -128, 127, 0 };
    const float scales[4] = { 1.0f, 1.0f, 1.0f, 1.0f };
    const float zero = 0.0f;
    uint8_t out[8];

    CHECK(step_of(&int8, f32_bits(1.0f), 127.5f) == 1.0f, "kept");
    CHECK(step_of(&int8, f32_bits(1.0f), 254.0f) == 2.0f, "a new one");
    CHECK(step_of(&int8_bf16, 0x3f80, 254.0f) == 2.0f, "as BF16");
    CHECK(step_of(&rows, f32_bits(3.0f), 3.0f) == 3.0f, "SCB, kept");
    CHECK(step_of(&rows, f32_bits(3.0f), 3.0005f) == 3.0f, "the same as F16");
    CHECK(step_of(&rows, f32_bits(3.0f), 0x1.9p1f) == 0x1.9p1f, "a new SCB");
    encode_int8(out, src, 8, scales, 2);
    CHECK(memcmp(out, expected, 8) == 0, "to the nearest even, and limited");
    encode_int8(out, src, 8, &zero, 8);
    CHECK(out[1] == 0 && out[6] == 0, "of a scale of 0");
}

/* The largest element of a block, over the steps of its scale, is at most what `limit` says. */
static void check_limits(void)
{
    static const struct {
        const struct quant_matrix *matrix;
        float limit; /* half a step more than the largest code */
    } cases[] = { { &fp8, 464.0f },      { &fp8_bf16, 464.0f }, { &fp8_f16, 464.0f },
                  { &fp8_e8m0, 464.0f }, { &mxfp4, 7.0f },      { &nvfp4, 7.0f },
                  { &int8, 127.5f },     { &int8_bf16, 127.5f } };
    uint64_t seed = 1;

    for (unsigned c = 0; c < COUNT_OF(cases); c++) {
        for (unsigned i = 0; i < DRAWS; i++) {
            float amax, step;
            uint32_t base;

            amax = ldexpf((float)random_in(&seed, 1u << 23, (1u << 24) - 1),
                          (int)random_in(&seed, 0, 15) - 30);
            base = f32_bits(amax / 400.0f * (float)random_in(&seed, 0, 3));
            if (cases[c].matrix->scale_dtype == DTYPE_BF16)
                base >>= 16;
            else if (cases[c].matrix->scale_dtype == DTYPE_F16)
                base = (uint32_t)random_in(&seed, 0, 0x3fff);
            else if (cases[c].matrix->scale_dtype != DTYPE_F32)
                base = (uint32_t)random_in(&seed, 110, 125);
            step = step_of(cases[c].matrix, base, amax);
            CHECK(amax <= cases[c].limit * step, "case %u: %g is more than %g of %g", c,
                  (double)amax, (double)cases[c].limit, (double)step);
        }
    }
}

int main(void)
{
    struct fold_environment environment;

    fold_environment_enter(&environment);
    check_fp8();
    check_fp4();
    check_integers();
    check_limits();
    fold_environment_leave(&environment);
    return 0;
}

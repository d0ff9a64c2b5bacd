/*
 * What encode.h defines, against numbers worked out by hand.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/encode.h"
#include "compute/encode_bounds.h"
#include "kernel/kernel_check.h"

#include <inttypes.h>
#include <math.h>

/* As they stand in the compiled CUDA kernels of bitsandbytes. */
static void check_bounds(void)
{
    static const uint32_t nf4[15] = { 0xbf591cd9, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec,
                                      0xbe0d38bc, 0xbd3a7871, 0x3d22faff, 0x3df64863, 0x3e5067e0,
                                      0x3e9582d4, 0x3ec753f9, 0x3f006d03, 0x3f248daf, 0x3f5c89d9 };
    static const uint32_t fp4[7] = { 0x3b2aaab9, 0x3db00000, 0x3e555555, 0x3e955555,
                                     0x3ed55556, 0x3f155550, 0x3f555555 };

    for (unsigned i = 0; i < 15; i++)
        CHECK(f32_bits(encode_nf4_bounds[i]) == nf4[i], "bound %u of NF4", i);
    for (unsigned i = 0; i < 7; i++)
        CHECK(f32_bits(encode_fp4_bounds[i]) == fp4[i], "bound %u of FP4", i);
}

static void expect_bnb4(enum quant_codes codes, const float *src, size_t count, size_t block,
                        const char *bytes, size_t bad)
{
    uint8_t out[64];
    float absmax[8];

    CHECK(encode_scalar.bnb4(out, absmax, codes, src, count, block) == bad, "the first bad one");
    for (size_t i = 0; i < (count + 1) / 2; i++) {
        unsigned byte;

        CHECK(sscanf(bytes + 2 * i, "%2x", &byte) == 1 && out[i] == byte,
              "byte %zu is %02x, expected '%s'", i, out[i], bytes);
    }
    CHECK(bytes[(count + 1) / 2 * 2] == '\0', "as many bytes");
}

static void check_bnb4(void)
{
    const float some[7] = { 1.0f, -1.0f, 0.5f, -0.5f, 0.0f, -0.0f, 0.01f };
    const float zeros[5] = { 0.0f, -0.0f, 0.0f, 0.0f, 4.0f };
    const float tiny[4] = { 0x1p-140f, 0.0f, -0x1p-140f, 0x1p-149f };
    const float small[4] = { 0x1p-127f, 0.0f, -0x1p-127f, 0x1p-149f }; /* 1 / absmax is finite */
    const float huge[2] = { 0x1.fffffep127f, -0x1p127f };
    const float nan[4] = { 1.0f, -1.0f, NAN, 0.0f };
    const float infinite[4] = { 1.0f, -INFINITY, 0.0f, 0.0f };

    expect_bnb4(QUANT_NF4, some, 7, 64, "f0c27777", FOLD_FINITE);
    expect_bnb4(QUANT_FP4_BNB, some, 7, 64, "3b5d0010", FOLD_FINITE);
    expect_bnb4(QUANT_NF4, zeros, 5, 4, "7777f7", FOLD_FINITE);
    expect_bnb4(QUANT_FP4_BNB, zeros, 5, 4, "000030", FOLD_FINITE);
    expect_bnb4(QUANT_NF4, tiny, 4, 64, "7777", FOLD_FINITE);
    expect_bnb4(QUANT_NF4, small, 4, 64, "f707", FOLD_FINITE);
    expect_bnb4(QUANT_NF4, huge, 2, 64, "f2", FOLD_FINITE);
    expect_bnb4(QUANT_NF4, nan, 4, 64, "f007", 2);
    expect_bnb4(QUANT_NF4, infinite, 4, 64, "7077", 1);
}

static void check_round_trip(void)
{
    const float src[6] = { 3.0f, -3.0f, 1.0f, 0.0f, 0.0f, -0.0f };
    const float large[2] = { 70000.0f, 1.0f };
    const float nan[3] = { 1.0f, NAN, 0.0f };
    float dst[6];

    CHECK(encode_scalar.bnb4_round_trip(dst, QUANT_NF4, DTYPE_BF16, src, 6, 4) == FOLD_FINITE,
          "finite");
    CHECK(dst[0] == 3.0f && dst[1] == -3.0f, "the largest come back");
    CHECK(f32_bits(dst[2]) == bf16_decode(bf16_encode(f32_bits(0.33791524171829224f * 3.0f))),
          "rounded to BF16");
    CHECK(f32_bits(dst[3]) == 0 && f32_bits(dst[4]) == 0 && f32_bits(dst[5]) == 0, "zeros are +0");
    CHECK(encode_scalar.bnb4_round_trip(dst, QUANT_NF4, DTYPE_F16, large, 2, 64) == 0,
          "beyond F16");
    CHECK(encode_scalar.bnb4_round_trip(dst, QUANT_NF4, DTYPE_BF16, nan, 3, 64) == 1, "a NaN");
}

static uint8_t one(enum quant_codes codes, float x, float scale)
{
    uint8_t out;

    encode_scalar.scaled(&out, codes, &x, 1, &scale, 1);
    return out;
}

static void check_scaled(void)
{
    const float bad[4] = { 1.0f, 2.0f, INFINITY, NAN };
    const float half[3] = { 1.0f, 65519.0f, 65520.0f };
    const float scales[2] = { 1.0f, 0.0f };
    uint8_t out[4];

    CHECK(one(QUANT_E4M3, -0.0f, 2.0f) == 0x80 && one(QUANT_E4M3, -1e-9f, 2.0f) == 0x80, "-0");
    CHECK(one(QUANT_E4M3, 1000.0f, 1.0f) == 0x7e && one(QUANT_E4M3, -449.0f, 1.0f) == 0xfe, "448");
    CHECK(one(QUANT_E4M3, 3e38f, 1e-30f) == 0x7e, "448 where x / s is infinite");
    CHECK(one(QUANT_E4M3, -5.0f, 0.0f) == 0, "a scale of zero");
    CHECK(one(QUANT_E4M3, NAN, 1.0f) == 0x7f && one(QUANT_E4M3, NAN, 0.0f) == 0x7f, "NaN");
    CHECK(one(QUANT_E4M3, 1.0f, 3.0f) == 0x2b, "1 / 3 is nearest to 11 / 32");
    CHECK(one(QUANT_E2M1, -0.0f, 1.0f) == 8 && one(QUANT_E2M1, -0.25f, 1.0f) == 8, "-0");
    CHECK(one(QUANT_E2M1, 0.75f, 1.0f) == 2 && one(QUANT_E2M1, 1.25f, 1.0f) == 2, "ties");
    CHECK(one(QUANT_E2M1, 5.0f, 1.0f) == 6 && one(QUANT_E2M1, -9e9f, 1.0f) == 15, "ties, limit");
    CHECK(one(QUANT_E2M1, 5.0f, 0.0f) == 0 && one(QUANT_E2M1, NAN, 1.0f) == 0, "zero, NaN");
    CHECK(one(QUANT_SIGNED, 1.0f, 1.0f) == 127 && one(QUANT_SIGNED, -1.0f, 1.0f) == 0x81, "127");
    CHECK(one(QUANT_SIGNED, -2.0f, 1.0f) == 0x81 && one(QUANT_SIGNED, 2.0f, 0.0f) == 0, "limits");
    CHECK(one(QUANT_SIGNED, 0.5f, 127.0f) == 0 && one(QUANT_SIGNED, 1.5f, 127.0f) == 2, "ties");
    CHECK(one(QUANT_SIGNED, 1.5f - 0x1p-20f, 127.0f) == 2, "rounded to F16 first");
    CHECK(encode_scalar.scaled(out, QUANT_E4M3, bad, 4, scales, 2) == 2, "the first bad one");
    CHECK(out[2] == 0 && out[3] == 0x7f, "an infinity by zero, a NaN by zero");
    CHECK(encode_scalar.scaled(out, QUANT_E2M1, bad, 4, scales, 4) == 2, "the first bad one");
    CHECK(out[0] == 0x42 && out[1] == 0x07, "two in a byte");
    CHECK(encode_scalar.scaled(out, QUANT_SIGNED, half, 3, scales, 3) == 2, "beyond F16");
    CHECK(encode_scalar.scaled(out, QUANT_SIGNED, half, 2, scales, 3) == FOLD_FINITE, "in F16");
}

/* All 256 codes there and back, and what lies halfway between two. */
static void check_e4m3(void)
{
    for (unsigned code = 0; code < 256; code++) {
        uint32_t bits = e4m3_decode((uint8_t)code);

        if ((code & 0x7f) == 0x7f) {
            CHECK(bits == F32_NAN, "%02x is NaN", code);
            continue;
        }
        CHECK(e4m3_encode(bits) == code, "code %02x", code);
        if ((code & 0x7f) == 0x7e)
            continue;
        bits = f32_bits((f32_from_bits(bits) + f32_from_bits(e4m3_decode((uint8_t)(code + 1)))) /
                        2);
        CHECK(e4m3_encode(bits) == code + (code & 1), "halfway above %02x", code);
        CHECK(e4m3_encode(bits - 1) == code && e4m3_encode(bits + 1) == code + 1,
              "beside halfway above %02x", code);
    }
    for (unsigned code = 0; code < 255; code++)
        CHECK(e8m0_encode(e8m0_decode((uint8_t)code)) == code, "E8M0 %02x", code);
    CHECK(f32_from_bits(e8m0_decode(0)) == 0x1p-127f && e8m0_decode(255) == F32_NAN, "E8M0");
}

static void check_nested(void)
{
    const float same[3] = { 0.25f, 0.25f, 0.25f };
    const float largest[2] = { 0x1.fffffep127f, 0x1.fffffep127f };
    float some[300];
    float map[256];
    float nested[2];
    uint8_t codes[300];
    float sum = 0.0f;

    encode_dynamic_map(map);
    for (unsigned k = 1; k < 256; k++)
        CHECK(map[k] > map[k - 1], "ascending at %u", k);
    CHECK(f32_bits(map[128]) == 0x3513a3b7 && f32_bits(map[200]) == 0x3e6f3333, "entries");
    CHECK(encode_nested_offset(same, 3) == 0.25f, "their mean");
    CHECK(encode_nested_offset(largest, 2) == INFINITY, "a sum beyond fp32");
    encode_nested(codes, nested, same, 3, 0.25f, map);
    CHECK(codes[0] == 0 && codes[2] == 0 && nested[0] == 0.0f, "all equal");
    for (unsigned i = 0; i < 300; i++)
        some[i] = (float)(i * i % 97) / 97.0f;
    encode_nested(codes, nested, some, 300, encode_nested_offset(some, 300), map);
    for (unsigned i = 0; i < 300; i++) {
        float v = (some[i] - encode_nested_offset(some, 300)) / nested[i / 256];
        float off = fabsf(map[codes[i]] - v);

        for (unsigned k = 0; k < 256; k++)
            CHECK(fabsf(map[k] - v) >= off - 1e-6f, "number %u: %u is nearer than %u", i, k,
                  codes[i]);
        sum += off;
    }
    CHECK(sum / 300 < 0.01f, "they are near");
}

/* The search as the kernel of bitsandbytes does it. */
static uint8_t searched(const float map[256], float x)
{
    unsigned low = 0;
    unsigned high = 255;
    unsigned pivot = 127;

    for (unsigned step = 64; step; step /= 2) {
        bool above = x > map[pivot];

        low = above ? pivot : low;
        high = above ? high : pivot;
        pivot = above ? pivot + step : pivot - step;
    }
    if (x > map[pivot])
        return (uint8_t)(x > (map[high] + map[pivot]) * 0.5f ? high : pivot);
    return (uint8_t)(x < (map[low] + map[pivot]) * 0.5f ? low : pivot);
}

/* `some` beside a 1, which makes it its own quotient. */
static void check_search(const float map[256], const float *some, unsigned count)
{
    float numbers[ENCODE_NESTED_BLOCK] = { 1.0f };
    uint8_t codes[ENCODE_NESTED_BLOCK];
    float nested;

    memcpy(numbers + 1, some, count * sizeof(float));
    encode_nested(codes, &nested, numbers, count + 1, 0.0f, map);
    for (unsigned i = 0; i <= count; i++)
        CHECK(codes[i] == searched(map, numbers[i]), "%a: code %u, the kernel's %u", numbers[i],
              codes[i], searched(map, numbers[i]));
}

static void check_searches(void)
{
    uint32_t random = 1;
    float map[256];
    float some[255];

    encode_dynamic_map(map);
    for (unsigned k = 0; k < 256; k++) {
        float around[2] = { map[k], (map[k] + map[k < 255 ? k + 1 : k]) * 0.5f };

        for (unsigned i = 0; i < 20; i++) { /* five last bits on both sides */
            float x = around[i % 2];

            x = x == 0 ? (float)i * 0x1p-149f : f32_from_bits(f32_bits(x) + i / 2 - 5);
            some[i] = fminf(x, 1.0f);
        }
        check_search(map, some, 20);
    }
    for (unsigned block = 0; block < 4000; block++) {
        for (unsigned i = 0; i < 255; i++) {
            random = random * 1664525u + 1013904223u;
            /* Either sign, exponents from 2^-32 to 1, all significands. */
            some[i] = f32_from_bits((random & 0x80000000u) |
                                    (0x2f800000u + (random >> 3) % 0x10000000u));
        }
        check_search(map, some, 255);
    }
    for (unsigned k = 0; k < 256; k++) /* a map with as many entries in one bin */
        map[k] = k < 2 ? -1.0f : 0.5f + (float)k * 0x1p-20f;
    map[255] = 1.0f;
    for (unsigned i = 0; i < 255; i++)
        some[i] = 0.5f + (float)(3 * i) * 0x1p-21f;
    check_search(map, some, 255);
}

static void check_mxfp4(void)
{
    CHECK(encode_mxfp4_scale(0.0f) == 0 && encode_mxfp4_scale(0x1p-149f) == 0, "the least");
    CHECK(encode_mxfp4_scale(4.0f) == 127 && encode_mxfp4_scale(7.99f) == 127, "4 to 8");
    CHECK(encode_mxfp4_scale(nextafterf(4.0f, 0.0f)) == 126, "below 4");
    CHECK(encode_mxfp4_scale(0x1.fffffep127f) == 252, "the largest");
    CHECK(encode_mxfp4_keep(127, 1.0f) == 127 && encode_mxfp4_keep(127, 7.9f) == 127, "kept");
    CHECK(encode_mxfp4_keep(127, 8.0f) == 128, "more is needed");
}

static void check_nvfp4(void)
{
    const enum quant_scale times = QUANT_SCALE_TIMES_WHOLE;
    const enum quant_scale over = QUANT_SCALE_OVER_WHOLE;

    /* 38 is 1, 40 is 2. */
    CHECK(encode_nvfp4_step(0x38, times, 0.5f) == 0.5f && encode_nvfp4_step(0x40, over, 8) == 0.25f,
          "steps");
    CHECK(encode_nvfp4_keep(0x38, 3.0f, times, 0.5f) == 0x38, "six steps are kept");
    CHECK(encode_nvfp4_keep(0x38, 6.0f, times, 0.5f) == 0x40, "twice as much");
    CHECK(encode_nvfp4_keep(0x38, 6.0f, over, 2.0f) == 0x40, "twice as much");
    CHECK(encode_nvfp4_keep(0x38, 3.01f, times, 0.5f) == 0x38, "nearest to what is needed");
    CHECK(encode_nvfp4_keep(0x00, 0.0f, times, 0.5f) == 0x00, "zeros");
    CHECK(encode_nvfp4_keep(0x38, 1e9f, times, 0.5f) == 0x7e, "448 at most");
}

static void check_fp8(void)
{
    CHECK(encode_fp8_scale(0.0f, DTYPE_F32) == 1.0f, "zeros");
    CHECK(encode_fp8_scale(448.0f, DTYPE_F32) == 1.0f, "448");
    CHECK(encode_fp8_scale(1.0f, DTYPE_F32) == 1.0f / 448.0f, "a division");
    CHECK(f32_bits(encode_fp8_scale(1.0f, DTYPE_BF16)) == 0x3b120000, "as BF16");
    CHECK(f32_bits(encode_fp8_scale(1.0f, DTYPE_F16)) == f16_decode(f16_encode(0x3b124925)), "F16");
    CHECK(encode_fp8_scale(1.0f, DTYPE_F8_E8M0) == 0x1p-8f, "up to a power of two");
    CHECK(encode_fp8_scale(448.0f, DTYPE_F8_E8M0) == 1.0f, "a power of two");
    CHECK(encode_fp8_scale(0x1p-149f, DTYPE_F32) == 0x1p-149f, "not 0");
    CHECK(encode_fp8_scale(0x1p-149f, DTYPE_BF16) == 0x1p-133f, "not 0");
    CHECK(encode_fp8_scale(1e-30f, DTYPE_F16) == 0x1p-24f, "not 0");
    CHECK(encode_fp8_scale(3e38f, DTYPE_F16) == 65504.0f, "not infinite");
    CHECK(encode_fp8_scale(0x1p-149f, DTYPE_F8_E8M0) == 0x1p-127f, "in the range of E8M0");
    CHECK(encode_fp8_scale(0x1.8p-119f, DTYPE_F8_E8M0) == 0x1p-127f, "up, and at the edge");
    CHECK(encode_fp8_keep(0.5f, 224.0f, DTYPE_F32) == 0.5f, "kept");
    CHECK(encode_fp8_keep(0.5f, 448.0f, DTYPE_F32) == 1.0f, "exceeded");
    CHECK(encode_fp8_keep(0.0f, 0.0f, DTYPE_F32) == 0.0f, "zeros");
}

int main(void)
{
    struct fold_environment environment;

    fold_environment_enter(&environment);
    check_bounds();
    check_bnb4();
    check_round_trip();
    check_scaled();
    check_e4m3();
    check_nested();
    check_searches();
    check_mxfp4();
    check_nvfp4();
    check_fp8();
    fold_environment_leave(&environment);
    return 0;
}

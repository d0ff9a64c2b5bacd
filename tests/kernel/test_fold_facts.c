/*
 * The definition itself, against facts that do not come from it: bits worked out by hand, double
 * arithmetic, the compiler's _Float16, and sums that come out differently where a product is
 * rounded, panels are not summed apart, or an order is changed.  Every table is asked.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/convert.h"
#include "compute/fold.h"
#include "cpu/cpu.h"
#include "kernel/kernel_check.h"

#include <math.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__FLT16_MANT_DIG__)
__extension__ typedef _Float16 compiler_f16;
#endif

#define P24 16777216.0f
#define RANK_MAX 192u

/* One element of a target, by hand: what W + scale * sum of b * a must give. */
struct fact {
    const char *what;
    enum dtype src_dtype;
    enum dtype dst_dtype;
    uint32_t w;      /* a pattern of src_dtype */
    uint32_t result; /* a pattern of dst_dtype */
    uint32_t rank;
    unsigned delta_count; /* each delta has a rank of its own of `rank` ranks */
    float scale;
    struct {
        uint32_t k; /* counted through all deltas */
        float b;
        float a;
    } terms[4]; /* the others are 0 */
};

#define EPS12 0x1p-12f
#define F32_F32 DTYPE_F32, DTYPE_F32
#define BF16_BF16 DTYPE_BF16, DTYPE_BF16
#define F16_F16 DTYPE_F16, DTYPE_F16

static const struct fact facts[] = {
    { "a product is not rounded",
      F32_F32,
      0,
      0x33800000,
      2,
      1,
      1.0f,
      { { 0, 1.0f, -1.0f - 0x1p-11f }, { 1, 1.0f + EPS12, 1.0f + EPS12 } } },
    { "a panel has a sum of its own",
      F32_F32,
      0,
      0x4b800001,
      66,
      1,
      1.0f,
      { { 0, 1.0f, P24 }, { 64, 1.0f, 1.0f }, { 65, 1.0f, 1.0f } } },
    { "a panel has 64 ranks",
      F32_F32,
      0,
      0x4b800000,
      64,
      1,
      1.0f,
      { { 0, 1.0f, P24 }, { 62, 1.0f, 1.0f }, { 63, 1.0f, 1.0f } } },
    { "panels ascend",
      F32_F32,
      0,
      0,
      192,
      1,
      1.0f,
      { { 0, 1.0f, 1.0f }, { 64, 1.0f, P24 }, { 128, 1.0f, -P24 } } },
    { "ranks ascend",
      F32_F32,
      0,
      0,
      3,
      1,
      1.0f,
      { { 0, 1.0f, 1.0f }, { 1, 1.0f, P24 }, { 2, 1.0f, -P24 } } },
    { "scale * sum is rounded",
      F32_F32,
      0xbf801000,
      0,
      1,
      1,
      1.0f + EPS12,
      { { 0, 1.0f, 1.0f + EPS12 } } },
    { "deltas are added in order",
      F32_F32,
      0x3f800000,
      0,
      1,
      2,
      1.0f,
      { { 0, 1.0f, P24 }, { 1, 1.0f, -P24 } } },
    { "a chain begins at +0", F32_F32, 0x80000000, 0, 1, 1, 1.0f, { { 0, -1.0f, 0.0f } } },
    { "the first panel is not added to +0",
      F32_F32,
      0x80000000,
      0x80000000,
      1,
      1,
      1.0f,
      { { 0, -0x1p-100f, 0x1p-100f } } },
    { "-0 + -0 with a negative scale",
      F32_F32,
      0x80000000,
      0x80000000,
      1,
      1,
      -1.0f,
      { { 0, 1.0f, 0.0f } } },
    { "the delta is not rounded to BF16",
      BF16_BF16,
      0x3f80,
      0x3f81,
      1,
      1,
      1.0f,
      { { 0, 1.0f, 0x1p-8f + 0x1p-20f } } },
    { "a tie goes to even, down", BF16_BF16, 0x3f80, 0x3f80, 1, 1, 1.0f, { { 0, 1.0f, 0x1p-8f } } },
    { "a tie goes to even, up", BF16_BF16, 0x3f81, 0x3f82, 1, 1, 1.0f, { { 0, 1.0f, 0x1p-8f } } },
    { "the delta is not rounded to F16",
      F16_F16,
      0x3c00,
      0x3c01,
      1,
      1,
      1.0f,
      { { 0, 1.0f, 0x1p-11f + 0x1p-23f } } },
    { "a tie of F16 goes to even", F16_F16, 0x3c00, 0x3c00, 1, 1, 1.0f, { { 0, 1.0f, 0x1p-11f } } },
    { "subnormal BF16 stays", BF16_BF16, 0x8001, 0x8001, 1, 1, 1.0f, { { 0, 1.0f, 0.0f } } },
    { "subnormal BF16 grows",
      BF16_BF16,
      0x0001,
      0x0003,
      1,
      1,
      1.0f,
      { { 0, 0x1p-60f, 0x1p-72f } } },
    { "subnormal F16 stays", F16_F16, 0x0001, 0x0001, 1, 1, 1.0f, { { 0, 1.0f, 0.0f } } },
    { "subnormal F16 grows to normal",
      F16_F16,
      0x03ff,
      0x0400,
      1,
      1,
      1.0f,
      { { 0, 1.0f, 0x1p-24f } } },
    { "subnormal F32 grows",
      F32_F32,
      0x00000001,
      0x00000003,
      1,
      1,
      2.0f,
      { { 0, 0x1p-75f, 0x1p-74f } } },
    { "BF16 overflows by rounding",
      BF16_BF16,
      0x7f7f,
      0x7f80,
      1,
      1,
      1.0f,
      { { 0, 0x1p100f, 0x1p19f } } },
    { "BF16 does not overflow below",
      BF16_BF16,
      0x7f7f,
      0x7f7f,
      1,
      1,
      1.0f,
      { { 0, 0x1p100f, 0x1p18f } } },
    { "F16 overflows by rounding", F16_F16, 0xfbff, 0xfc00, 1, 1, -1.0f, { { 0, 1.0f, 16.0f } } },
    { "F16 does not overflow below",
      F16_F16,
      0x7bff,
      0x7bff,
      1,
      1,
      1.0f,
      { { 0, 1.0f, 15.984375f } } },
    { "scale * sum overflows",
      BF16_BF16,
      0x3f80,
      0x7f80,
      1,
      1,
      0x1p100f,
      { { 0, 1.0f, 0x1p100f } } },
    { "inf - inf", F32_F32, 0x7f800000, 0x7fc00000, 1, 1, -0x1p100f, { { 0, 1.0f, 0x1p100f } } },
    { "0 * inf", F16_F16, 0x3c00, 0x7e00, 2, 1, 1.0f, { { 0, 0.0f, INFINITY } } },
    { "inf * 0 of the scale", BF16_BF16, 0x3f80, 0x7fc0, 1, 1, 0.0f, { { 0, INFINITY, 1.0f } } },
    { "a NaN of W becomes canonical",
      BF16_BF16,
      0xff81,
      0x7fc0,
      1,
      1,
      1.0f,
      { { 0, 1.0f, 1.0f } } },
    { "a NaN of W in F16", F16_F16, 0xfc01, 0x7e00, 1, 1, 1.0f, { { 0, 1.0f, 1.0f } } },
    { "a NaN of B", F32_F32, 0, 0x7fc00000, 1, 1, 1.0f, { { 0, -NAN, 1.0f } } },
    { "a NaN in a conversion", F32_F32, 0xffc00001, 0x7fc00000, 0, 0, 0.0f, { { 0, 0.0f, 0.0f } } },
    { "F32 to BF16 rounds once",
      DTYPE_F32,
      DTYPE_BF16,
      0x3f808001,
      0x3f81,
      0,
      0,
      0.0f,
      { { 0, 0.0f, 0.0f } } },
    { "BF16 to F16 overflows",
      DTYPE_BF16,
      DTYPE_F16,
      0x4780,
      0x7c00,
      0,
      0,
      0.0f,
      { { 0, 0.0f, 0.0f } } },
    { "BF16 to F16 subnormal",
      DTYPE_BF16,
      DTYPE_F16,
      0x3380,
      0x0001,
      0,
      0,
      0.0f,
      { { 0, 0.0f, 0.0f } } },
    { "BF16 to F16 half of a subnormal",
      DTYPE_BF16,
      DTYPE_F16,
      0xb300,
      0x8000,
      0,
      0,
      0.0f,
      { { 0, 0.0f, 0.0f } } },
};

static bool pattern_finite(enum dtype dtype, uint32_t bits)
{
    uint32_t exponent = dtype == DTYPE_F32 ? 0x7f800000 : dtype == DTYPE_BF16 ? 0x7f80 : 0x7c00;

    return (bits & exponent) != exponent;
}

/* The element at every column of 15 rows, so that each lane and each size of tile is asked. */
static void check_fact(const struct fold_ops *ops, const struct fact *fact)
{
    enum { COLS = 37, ROWS = 15, COUNT = COLS * ROWS };
    static _Alignas(64) float a[2][RANK_MAX * 64];
    static float b[2][RANK_MAX * ROWS];
    uint32_t dst[COUNT];
    unsigned char src[COUNT * sizeof(uint32_t)];
    size_t src_bytes = dtype_bytes(fact->src_dtype);
    size_t dst_bytes = dtype_bytes(fact->dst_dtype);
    struct fold_delta deltas[2];
    struct fold_segment segment = { src, dst,   fact->src_dtype, fact->dst_dtype,  COLS,
                                    0,   COUNT, deltas,          fact->delta_count };
    size_t bad;

    for (unsigned d = 0; d < fact->delta_count; d++) {
        float row[COLS];

        memset(b[d], 0, sizeof(b[d]));
        for (uint32_t k = 0; k < fact->rank; k++) {
            float value = 0.0f;

            for (size_t i = 0; i < COUNT_OF(fact->terms); i++) {
                if (fact->terms[i].k != d * fact->rank + k ||
                    (i > 0 && fact->terms[i].b == 0.0f && fact->terms[i].k == 0))
                    continue;
                value = fact->terms[i].a;
                for (uint32_t r = 0; r < ROWS; r++)
                    b[d][r * fact->rank + k] = fact->terms[i].b;
            }
            for (size_t i = 0; i < COLS; i++)
                row[i] = value;
            fold_pack_row(a[d], fact->rank, k, row, COLS);
        }
        deltas[d] = (struct fold_delta){ a[d], b[d], fact->rank, fact->scale };
    }
    for (size_t i = 0; i < COUNT; i++)
        memcpy(src + i * src_bytes, &fact->w, src_bytes);
    bad = ops->fold(&segment);
    for (size_t i = 0; i < COUNT; i++) {
        uint32_t got = 0;

        memcpy(&got, (unsigned char *)dst + i * dst_bytes, dst_bytes);
        CHECK(got == fact->result, "%s: %s: element %zu is %x, not %x", ops->name, fact->what, i,
              got, fact->result);
    }
    CHECK(bad == (pattern_finite(fact->dst_dtype, fact->result) ? FOLD_FINITE : 0), "%s: %s",
          ops->name, fact->what);
}

/* Small whole numbers: every sum is exact in double and in float, whatever the order. */
static void check_exact(const struct fold_ops *ops)
{
    enum { COLS = 75, ROWS = 14, RANK = 70, COUNT = COLS * ROWS };
    static _Alignas(64) float packed[RANK * 96];
    static float a[RANK][COLS];
    static float b[ROWS][RANK];
    static float w[COUNT];
    static float dst[COUNT];
    uint64_t rng = 7;
    struct fold_delta delta = { packed, &b[0][0], RANK, 0.125f };
    struct fold_segment segment = { w, dst, DTYPE_F32, DTYPE_F32, COLS, 0, COUNT, &delta, 1 };

    for (size_t k = 0; k < RANK; k++) {
        for (size_t col = 0; col < COLS; col++)
            a[k][col] = (float)random_in(&rng, 0, 16) - 8.0f;
        for (size_t row = 0; row < ROWS; row++)
            b[row][k] = (float)random_in(&rng, 0, 16) - 8.0f;
        fold_pack_row(packed, RANK, k, a[k], COLS);
    }
    for (size_t i = 0; i < COUNT; i++)
        w[i] = (float)random_in(&rng, 0, 2000) - 1000.0f;
    CHECK(ops->fold(&segment) == FOLD_FINITE, "%s", ops->name);
    for (size_t i = 0; i < COUNT; i++) {
        double sum = 0;

        for (size_t k = 0; k < RANK; k++)
            sum += (double)b[i / COLS][k] * (double)a[k][i % COLS];
        CHECK((double)dst[i] == (double)w[i] + 0.125 * sum, "%s: element %zu: %g", ops->name, i,
              (double)dst[i]);
    }
}

/* A NaN between the pieces is the canonical one, too; the payloads here are not. */
static void check_nan_pieces(const struct fold_ops *ops)
{
    enum { COLS = 45 };
    static _Alignas(64) float a[64];
    float b = f32_from_bits(0xffc00001);
    float sum[COLS];
    float w[COLS];

    memset(a, 0, sizeof(a));
    ops->panel_sum(sum, COLS, 1, COLS, a, &b, 1, 1, true);
    for (size_t i = 0; i < COLS; i++) {
        CHECK(f32_bits(sum[i]) == F32_NAN, "%s: sum %zu is %x", ops->name, i, f32_bits(sum[i]));
        sum[i] = 1.0f;
        w[i] = f32_from_bits(0xff800001);
    }
    ops->add_scaled(w, sum, 1.0f, COLS);
    for (size_t i = 0; i < COLS; i++)
        CHECK(f32_bits(w[i]) == F32_NAN, "%s: w %zu is %x", ops->name, i, f32_bits(w[i]));
}

/* A packed factor is zero behind its last column, and no more than the row is read. */
static void check_packing(void)
{
    for (uint64_t cols = 1; cols <= 70; cols++) {
        enum { RANK = 3 };
        float packed[RANK * 96];
        struct guarded row = guarded_alloc(cols * sizeof(float), true, 0, 0);
        float *values = (float *)(void *)row.bytes;

        memset(packed, 0xff, sizeof(packed));
        for (uint64_t k = 0; k < RANK; k++) {
            for (uint64_t col = 0; col < cols; col++)
                values[col] = (float)(100 * k + col + 1);
            fold_pack_row(packed, RANK, k, values, cols);
        }
        for (size_t i = 0; i < fold_packed_floats(RANK, cols); i++) {
            uint64_t col = i / FOLD_GROUP / RANK * FOLD_GROUP + i % FOLD_GROUP;
            uint64_t k = i / FOLD_GROUP % RANK;
            float wanted = col < cols ? (float)(100 * k + col + 1) : 0.0f;

            CHECK(packed[i] == wanted, "%d columns: float %zu is %g", (int)cols, i,
                  (double)packed[i]);
        }
        guarded_free(&row);
    }
}

/* The value of a finite or infinite 16-bit pattern, from its fields. */
static double value_of(enum dtype dtype, uint16_t bits)
{
    int fraction_bits = dtype == DTYPE_BF16 ? 7 : 10;
    int bias = dtype == DTYPE_BF16 ? 127 : 15;
    int exponent = (bits & 0x7fff) >> fraction_bits;
    int fraction = bits & ((1 << fraction_bits) - 1);
    double value = exponent
                       ? ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits)
                       : ldexp(fraction, 1 - bias - fraction_bits);

    return bits & 0x8000 ? -value : value;
}

/* Encode some patterns with a table, as the definition does and to this expectation. */
static void expect_encoded(const struct fold_ops *ops, enum dtype dtype, const float *values,
                           const uint16_t *wanted, size_t count)
{
    uint16_t got[8];

    ops->encode(got, dtype, values, count);
    for (size_t i = 0; i < count; i++)
        CHECK(got[i] == wanted[i], "%s: %a to %s is %x, not %x", ops->name, (double)values[i],
              dtype_name(dtype), got[i], wanted[i]);
}

/* Every 16-bit pattern there and back, and the numbers around the middle to the next one. */
static void check_all_16_bit(const struct fold_ops *ops, enum dtype dtype)
{
    uint16_t infinity = dtype == DTYPE_BF16 ? 0x7f80 : 0x7c00;
    uint16_t nan = dtype == DTYPE_BF16 ? BF16_NAN : F16_NAN;

    for (uint32_t pattern = 0; pattern <= 0xffff; pattern++) {
        uint16_t bits = (uint16_t)pattern;
        uint16_t magnitude = bits & 0x7fff;
        float value;
        float middle;

        ops->decode(&value, &bits, dtype, 1);
        if (magnitude > infinity) {
            CHECK(isnan(value), "%s: %s %x", ops->name, dtype_name(dtype), bits);
            expect_encoded(ops, dtype, &value, &nan, 1);
            continue;
        }
        expect_encoded(ops, dtype, &value, &bits, 1);
        if (magnitude == infinity) {
            CHECK(isinf(value) && !signbit(value) == !(bits & 0x8000), "%s: %x", ops->name, bits);
            continue;
        }
        CHECK((double)value == value_of(dtype, bits) && !signbit(value) == !(bits & 0x8000),
              "%s: %s %x is %a", ops->name, dtype_name(dtype), bits, (double)value);
        /* value_of() goes on beyond the largest finite number as rounding does. */
        middle = (float)((value_of(dtype, bits) + value_of(dtype, (uint16_t)(bits + 1))) / 2);
        expect_encoded(
            ops, dtype,
            (const float[]){ nextafterf(middle, value), middle,
                             nextafterf(middle, bits & 0x8000 ? -INFINITY : INFINITY) },
            (const uint16_t[]){ bits, (uint16_t)(bits + (bits & 1)), (uint16_t)(bits + 1) }, 3);
    }
}

/* fp32 patterns all over: each table as the definition, the definition as the compiler. */
static void check_sampled_f32(const struct fold_ops *ops)
{
    enum { CHUNK = 4096 };
    static float values[CHUNK];
    static uint16_t bf16[CHUNK];
    static uint16_t f16[CHUNK];
    static uint32_t f32[CHUNK];
    uint32_t pattern = 0;

    for (size_t chunk = 0; chunk < 300; chunk++) {
        for (size_t i = 0; i < CHUNK; i++) {
            values[i] = f32_from_bits(pattern);
            pattern += 3499; /* odd: no pattern comes twice, and 300 chunks go round once */
        }
        ops->encode(bf16, DTYPE_BF16, values, CHUNK);
        ops->encode(f16, DTYPE_F16, values, CHUNK);
        ops->encode(f32, DTYPE_F32, values, CHUNK);
        for (size_t i = 0; i < CHUNK; i++) {
            uint32_t bits = f32_bits(values[i]);

            CHECK(bf16[i] == bf16_encode(bits), "%s: %x to BF16", ops->name, bits);
            CHECK(f16[i] == f16_encode(bits), "%s: %x to F16", ops->name, bits);
            CHECK(f32[i] == (isnan(values[i]) ? 0x7fc00000 : bits), "%s: %x to F32", ops->name,
                  bits);
#if defined(__FLT16_MANT_DIG__)
            if (!isnan(values[i])) {
                compiler_f16 half = (compiler_f16)values[i];

                CHECK(memcmp(&half, &f16[i], sizeof(half)) == 0, "%s: %x", ops->name, bits);
            }
#endif
        }
    }
}

/* A host program may have set flush-to-zero and another rounding; enter undoes it, leave redoes. */
static void check_environment(void)
{
#if defined(__x86_64__)
    const uint64_t hostile = 0x1f80 | 0x8040 | 0x4000; /* FTZ, DAZ, round up */
    struct fold_environment environment;
    unsigned saved = _mm_getcsr();

    _mm_setcsr((unsigned)hostile);
    fold_environment_enter(&environment);
    CHECK(_mm_getcsr() == 0x1f80, "%x", _mm_getcsr());
    for (size_t i = 0; i < COUNT_OF(facts); i++)
        check_fact(cpu_fold_find(NULL), &facts[i]);
    fold_environment_leave(&environment);
    CHECK(_mm_getcsr() == hostile, "%x", _mm_getcsr());
    _mm_setcsr(saved);
#elif defined(__aarch64__)
    const uint64_t hostile = 1u << 24 | 1u << 22; /* FZ, round up */
    struct fold_environment environment;
    uint64_t fpcr;

    __asm__ volatile("msr fpcr, %0" : : "r"(hostile) : "memory");
    fold_environment_enter(&environment);
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr) : : "memory");
    CHECK(fpcr == 0, "%llx", (unsigned long long)fpcr);
    for (size_t i = 0; i < COUNT_OF(facts); i++)
        check_fact(cpu_fold_find(NULL), &facts[i]);
    fold_environment_leave(&environment);
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr) : : "memory");
    CHECK(fpcr == hostile, "%llx", (unsigned long long)fpcr);
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
#endif
}

static void check_choice(void)
{
    const struct fold_ops *const *table = cpu_fold_available();

    CHECK(cpu_fold_find(NULL) == table[0], "the best is the first");
    for (; *table; table++) {
        CHECK(cpu_fold_find((*table)->name) == *table, "%s", (*table)->name);
        CHECK(table[1] || *table == &fold_scalar, "%s is the last", (*table)->name);
    }
    CHECK(cpu_fold_find("") == NULL && cpu_fold_find("sse") == NULL, "no such table");
    CHECK(cpu_count() >= 1, "%u", cpu_count());
}

int main(void)
{
    struct fold_environment environment;

    check_environment();
    check_choice();
    check_packing();
    fold_environment_enter(&environment);
    for (const struct fold_ops *const *table = cpu_fold_available(); *table; table++) {
        for (size_t i = 0; i < COUNT_OF(facts); i++)
            check_fact(*table, &facts[i]);
        check_exact(*table);
        check_nan_pieces(*table);
        check_all_16_bit(*table, DTYPE_BF16);
        check_all_16_bit(*table, DTYPE_F16);
        check_sampled_f32(*table);
    }
    fold_environment_leave(&environment);
    printf("%zu facts\n", COUNT_OF(facts));
    return 0;
}

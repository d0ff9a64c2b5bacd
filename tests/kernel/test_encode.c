/*
 * Every table of encode operations must give the bits of encode_scalar, which is the definition.
 * test_encode_facts.c and test_encode_golden.c check the definition itself.
 *
 * usage: test_encode [FIRST_SEED [COUNT]]
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/encode_bounds.h"
#include "cpu/cpu.h"
#include "kernel/kernel_check.h"

#include <inttypes.h>
#include <math.h>

#define SEEDS 600
#define POISON 0xa5

/* What is encoded: in `src` at the end, or at the beginning, of memory that is guarded. */
struct input {
    struct guarded src;
    size_t count;
    size_t block;
    float *scales; /* of whole blocks */
};

static size_t blocks_of(const struct input *input)
{
    return (input->count + input->block - 1) / input->block;
}

static void *test_alloc(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);

    CHECK(memory, "no memory");
    return memory;
}

static const float *src_of(const struct input *input)
{
    return (const float *)(const void *)input->src.bytes;
}

static struct guarded guarded_like(const struct guarded *other, size_t count, size_t slack)
{
    bool at_end = other->bytes + other->count + sysconf(_SC_PAGESIZE) ==
                  other->map + other->map_bytes;

    return guarded_alloc(count, at_end, slack, POISON);
}

static void compare(const struct guarded *out, const void *expected, const char *what,
                    const char *table, uint64_t seed)
{
    const unsigned char *want = expected;

    CHECK(guarded_intact(out, POISON), "%s, %s, seed %" PRIu64 ": written outside", what, table,
          seed);
    for (size_t i = 0; i < out->count; i++)
        CHECK(out->bytes[i] == want[i], "%s, %s, seed %" PRIu64 ": byte %zu is %02x, not %02x",
              what, table, seed, i, out->bytes[i], want[i]);
}

static void compare_bnb4(const struct encode_ops *ops, const struct input *in, unsigned slack,
                         enum quant_codes codes, uint64_t seed)
{
    size_t blocks = blocks_of(in);
    uint8_t *bytes = test_alloc((in->count + 1) / 2);
    float *absmax = test_alloc(blocks * sizeof(float));
    struct guarded out = guarded_like(&in->src, (in->count + 1) / 2, slack);
    struct guarded largest = guarded_like(&in->src, blocks * sizeof(float), 0);
    size_t bad = encode_scalar.bnb4(bytes, absmax, codes, src_of(in), in->count, in->block);

    CHECK(ops->bnb4(out.bytes, (float *)(void *)largest.bytes, codes, src_of(in), in->count,
                    in->block) == bad,
          "bnb4, %s, seed %" PRIu64 ": which is not finite", ops->name, seed);
    compare(&out, bytes, "bnb4", ops->name, seed);
    compare(&largest, absmax, "absmax of bnb4", ops->name, seed);
    encode_scalar.absmax(absmax, src_of(in), in->count, in->block);
    memset(largest.bytes, POISON, largest.count);
    ops->absmax((float *)(void *)largest.bytes, src_of(in), in->count, in->block);
    compare(&largest, absmax, "absmax", ops->name, seed);
    guarded_free(&out);
    guarded_free(&largest);
    free(bytes);
    free(absmax);
}

static void compare_round_trip(const struct encode_ops *ops, const struct input *in,
                               enum quant_codes codes, enum dtype dtype, bool in_place,
                               uint64_t seed)
{
    size_t bytes = in->count * sizeof(float);
    float *expected = test_alloc(bytes);
    struct guarded out = guarded_like(&in->src, bytes, 0);
    float *dst = (float *)(void *)out.bytes;
    size_t bad = encode_scalar.bnb4_round_trip(expected, codes, dtype, src_of(in), in->count,
                                               in->block);

    if (in_place)
        memcpy(dst, src_of(in), bytes);
    CHECK(ops->bnb4_round_trip(dst, codes, dtype, in_place ? dst : src_of(in), in->count,
                               in->block) == bad,
          "round trip, %s, seed %" PRIu64 ": which is not finite", ops->name, seed);
    compare(&out, expected, "round trip", ops->name, seed);
    guarded_free(&out);
    free(expected);
}

static void compare_scaled(const struct encode_ops *ops, const struct input *in, unsigned slack,
                           enum quant_codes codes, uint64_t seed)
{
    size_t count = codes == QUANT_E2M1 ? (in->count + 1) / 2 : in->count;
    uint8_t *expected = test_alloc(count);
    struct guarded out = guarded_like(&in->src, count, slack);
    size_t bad = encode_scalar.scaled(expected, codes, src_of(in), in->count, in->scales,
                                      in->block);

    CHECK(ops->scaled(out.bytes, codes, src_of(in), in->count, in->scales, in->block) == bad,
          "scaled, %s, seed %" PRIu64 ": which is not finite", ops->name, seed);
    compare(&out, expected, "scaled", ops->name, seed);
    guarded_free(&out);
    free(expected);
}

static void compare_all(const struct input *in, unsigned slack, uint64_t seed)
{
    static const enum quant_codes bnb[] = { QUANT_NF4, QUANT_FP4_BNB };
    static const enum quant_codes given[] = { QUANT_E4M3, QUANT_E2M1, QUANT_SIGNED };
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };

    for (const struct encode_ops *const *ops = cpu_encode_available(); *ops; ops++) {
        for (unsigned i = 0; i < COUNT_OF(bnb) && in->block % 2 == 0; i++) {
            compare_bnb4(*ops, in, slack, bnb[i], seed);
            for (unsigned d = 0; d < COUNT_OF(dtypes); d++)
                compare_round_trip(*ops, in, bnb[i], dtypes[d], (seed + d) % 2, seed);
        }
        for (unsigned i = 0; i < COUNT_OF(given); i++)
            compare_scaled(*ops, in, slack, given[i], seed);
    }
}

/* A scale that puts the block's numbers into the range of codes, or anything that is allowed. */
static float random_scale(uint64_t *rng, uint64_t rarity)
{
    float scale = fabsf(random_value(rng, rarity));

    if (!isfinite(scale))
        return 0.0f;
    return rarity || !random_one_in(rng, 3) ? scale : scale * 0x1p-9f;
}

static void random_block_of(uint64_t *rng, float *src, size_t count, uint64_t rarity)
{
    float by = ldexpf(1.0f, (int)random_in(rng, 0, 40) - 30);

    if (random_one_in(rng, 20)) {
        memset(src, 0, count * sizeof(float));
        return;
    }
    fill_floats(rng, src, count, rarity);
    if (random_one_in(rng, 30)) /* around where 1 / absmax overflows */
        by = ldexpf(1.0f, -(int)random_in(rng, 125, 149));
    for (size_t i = 0; i < count; i++)
        src[i] = f32_from_bits(bf16_decode(bf16_encode(f32_bits(src[i] * by))));
}

static void check_random(uint64_t seed)
{
    static const uint64_t rarities[] = { 0, 0, 0, 50, 2000 };
    static const size_t usual[] = { 16, 32, 64, 64, 64, 128, 512, 1024, 4096 };
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t *rng = &state;
    uint64_t rarity = rarities[random_in(rng, 0, COUNT_OF(rarities) - 1)];
    struct input in = { .block = usual[random_in(rng, 0, COUNT_OF(usual) - 1)] };
    float *src;

    in.count = (size_t)random_in(rng, 1, random_one_in(rng, 4) ? 9000 : 700);
    if (random_one_in(rng, 3))
        in.block = (size_t)random_in(rng, 1, in.count);
    in.src = guarded_alloc(in.count * sizeof(float), random_one_in(rng, 2), 0, POISON);
    in.scales = test_alloc(blocks_of(&in) * sizeof(float));
    src = (float *)(void *)in.src.bytes;
    for (size_t b = 0; b < blocks_of(&in); b++) {
        size_t first = b * in.block;
        size_t here = in.count - first < in.block ? in.count - first : in.block;

        random_block_of(rng, src + first, here, random_one_in(rng, 2) ? rarity : 0);
        in.scales[b] = random_scale(rng, rarity);
    }
    compare_all(&in, (unsigned)random_in(rng, 0, 1), seed);
    guarded_free(&in.src);
    free(in.scales);
}

/* Every count up to a few vectors, in one block and in blocks of 2 and 3. */
static void check_counts(void)
{
    static const size_t blocks[] = { 2, 3, 100 };
    uint64_t rng = 77;

    for (size_t count = 1; count <= 70; count++) {
        for (unsigned b = 0; b < COUNT_OF(blocks); b++) {
            struct input in = { .count = count, .block = blocks[b] };
            float *src;

            in.src = guarded_alloc(count * sizeof(float), b % 2, 0, POISON);
            in.scales = test_alloc(blocks_of(&in) * sizeof(float));
            src = (float *)(void *)in.src.bytes;
            fill_floats(&rng, src, count, 0);
            for (size_t i = 0; i < blocks_of(&in); i++)
                in.scales[i] = 0.125f;
            compare_all(&in, count % 2, count);
            src[random_in(&rng, 0, count - 1)] = NAN;
            compare_all(&in, count % 2, count);
            guarded_free(&in.src);
            free(in.scales);
        }
    }
}

/* x, its neighbours and the same below zero, beside a number that makes absmax 1. */
static void check_around(struct input *in, float x)
{
    float *src = (float *)(void *)in->src.bytes;

    memset(src, 0, in->src.count);
    src[0] = 1.0f;
    src[1] = x;
    src[2] = nextafterf(x, INFINITY);
    src[3] = nextafterf(x, -INFINITY);
    for (unsigned i = 1; i < 4; i++)
        src[i + 3] = -src[i];
    in->scales[0] = 1.0f;
    compare_all(in, 0, f32_bits(x));
}

/* The bounds of all codes, ties among them, and every number of 16 bits. */
static void check_bounds(void)
{
    struct input in = { .count = 64, .block = 64 };
    float *src;

    in.src = guarded_alloc(in.count * sizeof(float), true, 0, POISON);
    in.scales = test_alloc(sizeof(float));
    for (unsigned i = 0; i < 15; i++)
        check_around(&in, encode_nf4_bounds[i]);
    for (unsigned i = 0; i < 7; i++) {
        check_around(&in, encode_fp4_bounds[i]);
        check_around(&in, encode_e2m1_bounds[i]);
    }
    for (unsigned code = 0; code < 0x7f; code++) {
        float low = f32_from_bits(e4m3_decode((uint8_t)code));
        float high = code == 0x7e ? 480.0f : f32_from_bits(e4m3_decode((uint8_t)(code + 1)));

        check_around(&in, (low + high) / 2);
        check_around(&in, low);
    }
    for (unsigned half = 0; half <= 255; half++)
        check_around(&in, (float)half / 2);
    guarded_free(&in.src);
    in.count = 65536;
    in.block = 65536;
    in.src = guarded_alloc(in.count * sizeof(float), true, 0, POISON);
    src = (float *)(void *)in.src.bytes;
    for (unsigned i = 0; i < 65536; i++)
        src[i] = f32_from_bits(bf16_decode((uint16_t)((i & 0x7f80) == 0x7f80 ? i & 0xff7f : i)));
    for (in.block = 2; in.block <= 65536; in.block *= 32) {
        free(in.scales);
        in.scales = test_alloc(blocks_of(&in) * sizeof(float));
        for (size_t b = 0; b < blocks_of(&in); b++)
            in.scales[b] = ldexpf(1.0f, (int)(b % 30) - 10);
        compare_all(&in, 0, in.block);
    }
    guarded_free(&in.src);
    free(in.scales);
}

/* Numbers around where results of a narrower dtype become infinite. */
static void check_overflow(void)
{
    static const uint32_t peaks[] = { 0x7f7f7fff, 0x7f7f8000, 0x7f7fffff, 0x477fefff,
                                      0x477ff000, 0x7f7f0000, 0x477fe000 };
    struct input in = { .count = 200, .block = 64 };
    float *src;

    in.src = guarded_alloc(in.count * sizeof(float), true, 0, POISON);
    in.scales = test_alloc(blocks_of(&in) * sizeof(float));
    src = (float *)(void *)in.src.bytes;
    for (unsigned p = 0; p < COUNT_OF(peaks); p++) {
        for (unsigned i = 0; i < in.count; i++)
            src[i] = (float)i;
        src[p] = src[100 + p] = -f32_from_bits(peaks[p]);
        for (size_t b = 0; b < blocks_of(&in); b++)
            in.scales[b] = 1.0f;
        compare_all(&in, 0, peaks[p]);
    }
    guarded_free(&in.src);
    free(in.scales);
}

static void check_tables(void)
{
    const struct fold_ops *const *folds = cpu_fold_available();
    const struct encode_ops *const *encodes = cpu_encode_available();

    CHECK(cpu_encode_find(NULL) == encodes[0], "the best one");
    CHECK(cpu_encode_find("none") == NULL, "no such table");
    for (unsigned t = 0; folds[t] || encodes[t]; t++) {
        CHECK(folds[t] && encodes[t] && strcmp(folds[t]->name, encodes[t]->name) == 0,
              "same names");
        CHECK(cpu_encode_find(encodes[t]->name) == encodes[t], "by name");
    }
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : SEEDS;
    struct fold_environment environment;

    fold_environment_enter(&environment);
    check_tables();
    check_counts();
    check_bounds();
    check_overflow();
    printf("seeds %" PRIu64 " to %" PRIu64 "\n", first, first + count - 1);
    for (uint64_t seed = first; seed < first + count; seed++)
        check_random(seed);
    fold_environment_leave(&environment);
    return 0;
}

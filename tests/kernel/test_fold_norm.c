/*
 * What DoRA needs of a table of fold operations: sums of squares and scaling.  Every table must
 * give the bits of fold_scalar; the definition is compared with sums worked out by hand.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/fold.h"
#include "cpu/cpu.h"
#include "kernel/kernel_check.h"

#include <math.h>

#define COUNT_MAX 200u /* several turns of every loop, and every length of a tail */
#define POISON 0xa5

/* One random input for all operations, and what the definition makes of it. */
struct norm_case {
    size_t count;
    float x[COUNT_MAX];
    float factors[COUNT_MAX];
    double lanes[FOLD_LANES]; /* before */
    double sums[COUNT_MAX];   /* before */
    double lanes_wanted[FOLD_LANES];
    double sums_wanted[COUNT_MAX];
    float scaled_wanted[COUNT_MAX];
    float scaled_each_wanted[COUNT_MAX];
};

/* Sums as they come, and any pattern: NaN of every payload, infinities, negative zeros. */
static double random_sum(uint64_t *rng, uint64_t rarity)
{
    uint64_t bits = random_next(rng);
    double value;

    if (!rarity || !random_one_in(rng, rarity))
        return fabs((double)random_unit(rng));
    if (random_one_in(rng, 2))
        bits |= UINT64_C(0x7ff0000000000000);
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static void make_case(struct norm_case *c, size_t count, uint64_t *rng, uint64_t rarity)
{
    c->count = count;
    fill_floats(rng, c->x, count, rarity);
    fill_floats(rng, c->factors, count, rarity);
    for (size_t l = 0; l < FOLD_LANES; l++)
        c->lanes[l] = random_sum(rng, rarity);
    for (size_t i = 0; i < count; i++)
        c->sums[i] = random_sum(rng, rarity);

    memcpy(c->lanes_wanted, c->lanes, sizeof(c->lanes));
    fold_scalar.add_squares(c->lanes_wanted, c->x, count);
    memcpy(c->sums_wanted, c->sums, sizeof(c->sums));
    fold_scalar.add_squares_each(c->sums_wanted, c->x, count);
    memcpy(c->scaled_wanted, c->x, sizeof(c->x));
    fold_scalar.scale(c->scaled_wanted, c->factors[0], count);
    memcpy(c->scaled_each_wanted, c->x, sizeof(c->x));
    fold_scalar.scale_each(c->scaled_each_wanted, c->factors, count);
}

static struct guarded guarded_copy(const void *bytes, size_t count, bool at_end)
{
    struct guarded memory = guarded_alloc(count, at_end, 0, POISON);

    memcpy(memory.bytes, bytes, count);
    return memory;
}

/* The output is as wanted, and nothing beside it was written. */
static void check_output(const struct fold_ops *ops, const char *what, struct guarded *got,
                         const void *wanted, size_t count)
{
    CHECK(memcmp(got->bytes, wanted, got->count) == 0, "%s %s, %zu elements", ops->name, what,
          count);
    CHECK(guarded_intact(got, POISON), "%s %s, %zu elements: wrote outside", ops->name, what,
          count);
    guarded_free(got);
}

static void check_case(const struct norm_case *c, const struct fold_ops *ops, bool at_end)
{
    const size_t floats = c->count * sizeof(float);
    struct guarded x = guarded_copy(c->x, floats, at_end);
    struct guarded factors = guarded_copy(c->factors, floats, at_end);
    struct guarded lanes = guarded_copy(c->lanes, sizeof(c->lanes), at_end);
    struct guarded sums = guarded_copy(c->sums, c->count * sizeof(double), at_end);
    struct guarded scaled = guarded_copy(c->x, floats, at_end);
    struct guarded scaled_each = guarded_copy(c->x, floats, at_end);
    const float *x_floats = (const float *)(const void *)x.bytes;

    ops->add_squares((double *)(void *)lanes.bytes, x_floats, c->count);
    ops->add_squares_each((double *)(void *)sums.bytes, x_floats, c->count);
    ops->scale((float *)(void *)scaled.bytes, c->factors[0], c->count);
    ops->scale_each((float *)(void *)scaled_each.bytes, (const float *)(const void *)factors.bytes,
                    c->count);
    check_output(ops, "add_squares", &lanes, c->lanes_wanted, c->count);
    check_output(ops, "add_squares_each", &sums, c->sums_wanted, c->count);
    check_output(ops, "scale", &scaled, c->scaled_wanted, c->count);
    check_output(ops, "scale_each", &scaled_each, c->scaled_each_wanted, c->count);
    guarded_free(&x);
    guarded_free(&factors);
}

static void check_tables(void)
{
    static const uint64_t rarities[] = { 0, 3, 50 };
    static struct norm_case c;
    uint64_t rng = 1;

    for (size_t count = 0; count <= COUNT_MAX; count++) {
        for (size_t i = 0; i < COUNT_OF(rarities); i++) {
            make_case(&c, count, &rng, rarities[i]);
            for (const struct fold_ops *const *table = cpu_fold_available(); *table; table++) {
                check_case(&c, *table, false);
                check_case(&c, *table, true);
            }
        }
    }
}

/* A row in parts gives what the whole row gives. */
static void check_parts(const struct fold_ops *ops)
{
    double whole[FOLD_LANES] = { 0 };
    double parts[FOLD_LANES] = { 0 };
    float x[COUNT_MAX];
    uint64_t rng = 2;

    fill_floats(&rng, x, COUNT_MAX, 0);
    ops->add_squares(whole, x, COUNT_MAX);
    ops->add_squares(parts, x, 3 * FOLD_LANES);
    ops->add_squares(parts, x + 3 * FOLD_LANES, FOLD_LANES);
    ops->add_squares(parts, x + 4 * FOLD_LANES, COUNT_MAX - 4 * FOLD_LANES);
    CHECK(memcmp(whole, parts, sizeof(whole)) == 0, "%s in parts", ops->name);
}

/* 2^54 swallows single ones, and three at once make it 2^54 + 4. */
static void check_order(const struct fold_ops *ops)
{
    double lanes[FOLD_LANES] = { 0 };
    double sums[FOLD_LANES] = { 0 };
    float ascending[4 * FOLD_LANES] = { 0 };
    float descending[4 * FOLD_LANES] = { 0 };

    for (size_t i = 0; i < 4; i++) {
        ascending[i * FOLD_LANES + 5] = i == 0 ? 0x1p27f : 1.0f;
        descending[i * FOLD_LANES + 6] = i == 3 ? -0x1p27f : -1.0f;
        ops->add_squares_each(sums, ascending + i * FOLD_LANES, FOLD_LANES);
        ops->add_squares_each(sums, descending + i * FOLD_LANES, FOLD_LANES);
    }
    ops->add_squares(lanes, ascending, COUNT_OF(ascending));
    ops->add_squares(lanes, descending, COUNT_OF(descending));
    for (size_t l = 0; l < FOLD_LANES; l++) {
        double wanted = l == 5 ? 0x1p54 : l == 6 ? 0x1p54 + 4 : 0;

        CHECK(lanes[l] == wanted, "%s: lane %zu is %a, not %a", ops->name, l, lanes[l], wanted);
        CHECK(sums[l] == wanted, "%s: sum %zu is %a, not %a", ops->name, l, sums[l], wanted);
    }
}

/* A square has 48 bits, and neither overflows nor vanishes where fp32 would. */
static void check_squares(const struct fold_ops *ops)
{
    static const struct {
        float x;
        double square;
    } facts[] = {
        { 1.0f + 0x1p-23f, 1.0 + 0x1p-22 + 0x1p-46 },
        { 0x1p-149f, 0x1p-298 },
        { -0x1p127f, 0x1p254 },
        { -INFINITY, INFINITY },
        { -0.0f, 0.0 },
    };

    for (size_t i = 0; i < COUNT_OF(facts); i++) {
        double lanes[FOLD_LANES] = { 0 };
        double sums[FOLD_LANES] = { 0 };
        float x[FOLD_LANES];

        for (size_t l = 0; l < FOLD_LANES; l++)
            x[l] = facts[i].x;
        ops->add_squares(lanes, x, FOLD_LANES);
        ops->add_squares_each(sums, x, FOLD_LANES);
        for (size_t l = 0; l < FOLD_LANES; l++)
            CHECK(lanes[l] == facts[i].square && sums[l] == facts[i].square,
                  "%s: the square of %a is %a and %a", ops->name, (double)facts[i].x, lanes[l],
                  sums[l]);
    }
}

static void check_norm_is(const double lanes[FOLD_LANES], uint32_t wanted, const char *what)
{
    uint32_t got = f32_bits(fold_norm(lanes));

    CHECK(got == wanted, "%s: the norm is %x, not %x", what, got, wanted);
}

/*
 * m is halfway between 1 and the next fp32 number, m * m is exact in double, and the root of
 * m * m + 2^-51 lies above m.  A term of 2^-53, half a step of m * m, is lost if it comes alone.
 */
static void check_norm(void)
{
    const double m = 1.0 + 0x1p-24;
    const uint32_t one = 0x3f800000;
    double lanes[FOLD_LANES] = { m * m };

    check_norm_is(lanes, one, "a tie goes to even");
    lanes[0] += 0x1p-51;
    check_norm_is(lanes, one + 1, "above the tie");
    lanes[0] = m * m;
    lanes[1] = lanes[17] = lanes[3] = lanes[19] = 0x1p-53;
    check_norm_is(lanes, one + 1, "far lanes come first");
    lanes[1] = lanes[17] = lanes[3] = lanes[19] = 0;
    lanes[16] = lanes[8] = lanes[4] = lanes[2] = lanes[1] = 0x1p-53;
    check_norm_is(lanes, one, "lane 0 takes one sum after another");

    for (size_t l = 0; l < FOLD_LANES; l++)
        lanes[l] = 4.5;
    check_norm_is(lanes, f32_bits(12.0f), "every lane counts once");
    lanes[31] = INFINITY;
    check_norm_is(lanes, F32_INFINITY, "infinite");
    lanes[0] = -NAN;
    check_norm_is(lanes, F32_NAN, "NaN");
    CHECK(fold_root(0.0) == 0.0f && fold_root(0x1p300) == INFINITY, "roots");
    CHECK(f32_bits(fold_root(-1.0)) == F32_NAN, "the root of a negative number");
    CHECK(fold_root(2.0) == 0x1.6a09e6p0f, "the root of 2");
}

static void check_factor(void)
{
    CHECK(fold_dora_factor(1.0f, 3.0f) == 0x1.555556p-2f, "a third");
    CHECK(fold_dora_factor(-1.0f, 0.0f) == -INFINITY, "a norm of zero");
    CHECK(f32_bits(fold_dora_factor(0.0f, 0.0f)) == F32_NAN, "0 / 0 is the canonical NaN");
    CHECK(f32_bits(fold_dora_factor(f32_from_bits(0xff812345), 1.0f)) == F32_NAN, "NaN");
    CHECK(fold_dora_factor(1.0f, INFINITY) == 0.0f, "an infinite norm");
}

int main(void)
{
    struct fold_environment environment;

    fold_environment_enter(&environment);
    printf("tables:");
    for (const struct fold_ops *const *table = cpu_fold_available(); *table; table++) {
        printf(" %s", (*table)->name);
        check_parts(*table);
        check_order(*table);
        check_squares(*table);
    }
    printf("\n");
    check_tables();
    check_norm();
    check_factor();
    fold_environment_leave(&environment);
    return 0;
}

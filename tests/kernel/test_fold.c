/*
 * Every table of fold operations must give the bits of fold_scalar, which is the definition.
 * test_fold_facts.c checks the definition itself.
 *
 * usage: test_fold [FIRST_SEED [COUNT]]
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/convert.h"
#include "compute/fold.h"
#include "cpu/cpu.h"
#include "kernel/kernel_check.h"

#include <inttypes.h>

#define DELTAS_MAX 3
#define POISON 0xa5
#define SEEDS 500

static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };

/* One random segment with all that it points to. */
struct fold_case {
    uint64_t seed;
    uint64_t cols;
    uint64_t rows; /* that the segment touches */
    struct fold_segment segment;
    struct fold_delta deltas[DELTAS_MAX];
    float *a_rows[DELTAS_MAX]; /* [rank][cols], before packing */
    struct guarded a[DELTAS_MAX];
    struct guarded b[DELTAS_MAX];
    struct guarded src;
    unsigned char *expected;
    size_t expected_bad;
};

/* Patterns of the dtype; a quarter is any pattern where specials are wanted. */
static void fill_elements(uint64_t *rng, unsigned char *out, enum dtype dtype, size_t count,
                          uint64_t rarity)
{
    size_t bytes = dtype_bytes(dtype);

    for (size_t i = 0; i < count; i++) {
        uint32_t bits = f32_bits(random_value(rng, rarity));
        uint16_t half = dtype == DTYPE_BF16 ? bf16_encode(bits) : f16_encode(bits);

        if (rarity && random_one_in(rng, 4))
            half = (uint16_t)random_next(rng);
        memcpy(out + i * bytes, dtype == DTYPE_F32 ? (void *)&bits : (void *)&half, bytes);
    }
}

static uint32_t random_rank(uint64_t *rng, bool huge)
{
    static const uint32_t edges[] = { 1, 2, 63, 64, 65, 127, 128, 129, 192, 193 };

    if (huge) /* more than a block of A holds */
        return (uint32_t)random_in(rng, 2000, 2300);
    if (random_one_in(rng, 2))
        return edges[random_in(rng, 0, COUNT_OF(edges) - 1)];
    return (uint32_t)random_in(rng, 1, random_one_in(rng, 3) ? 200 : 20);
}

static void make_delta(struct fold_case *c, unsigned d, uint64_t *rng, uint64_t rarity, bool huge)
{
    struct fold_delta *delta = &c->deltas[d];
    uint32_t rank = random_rank(rng, huge);
    size_t a_bytes = fold_packed_floats(rank, c->cols) * sizeof(float);

    c->a_rows[d] = malloc(rank * c->cols * sizeof(float));
    CHECK(c->a_rows[d], "no memory");
    fill_floats(rng, c->a_rows[d], rank * c->cols, rarity ? rarity * 8 : 0);
    c->a[d] = guarded_alloc(a_bytes, random_one_in(rng, 2), 0, POISON);
    for (uint32_t k = 0; k < rank; k++)
        fold_pack_row((float *)(void *)c->a[d].bytes, rank, k, c->a_rows[d] + k * c->cols, c->cols);
    c->b[d] = guarded_alloc(c->rows * rank * sizeof(float), random_one_in(rng, 2),
                            4 * random_in(rng, 0, 3), POISON);
    fill_floats(rng, (float *)(void *)c->b[d].bytes, c->rows * rank, rarity ? rarity * 8 : 0);
    *delta = (struct fold_delta){
        .a = (const float *)(const void *)c->a[d].bytes,
        .b = (const float *)(const void *)c->b[d].bytes,
        .rank = rank,
        .scale = random_value(rng, rarity),
    };
}

static void make_case(struct fold_case *c, uint64_t seed)
{
    static const uint64_t rarities[] = { 0, 0, 3, 50, 1000 };
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t *rng = &state;
    uint64_t rarity = rarities[random_in(rng, 0, COUNT_OF(rarities) - 1)];
    bool huge = seed % 40 == 0;
    uint64_t first_col;
    size_t count;

    *c = (struct fold_case){ .seed = seed };
    c->cols = random_one_in(rng, 12) ? random_in(rng, 300, 5000) | 1 : random_in(rng, 1, 300);
    if (random_one_in(rng, 4))
        c->cols = random_in(rng, 1, 8) * FOLD_GROUP;
    first_col = random_one_in(rng, 3) ? 0 : random_in(rng, 0, c->cols - 1);
    count = random_in(rng, 0, huge ? 200 : random_one_in(rng, 4) ? 6000 : 1500);
    if (random_one_in(rng, 4)) /* whole rows */
        count = (first_col + count + c->cols) / c->cols * c->cols - first_col;
    c->rows = (first_col + count + c->cols - 1) / c->cols;
    c->segment = (struct fold_segment){
        .src_dtype = dtypes[seed % 3],
        .dst_dtype = dtypes[seed / 3 % 3],
        .cols = c->cols,
        .first_col = first_col,
        .count = count,
        .deltas = c->deltas,
        .delta_count = huge ? 1 : (unsigned)random_in(rng, random_one_in(rng, 4) ? 0 : 1, 3),
    };
    for (unsigned d = 0; d < c->segment.delta_count; d++)
        make_delta(c, d, rng, rarity, huge);
    c->src = guarded_alloc(count * dtype_bytes(c->segment.src_dtype), random_one_in(rng, 2),
                           random_in(rng, 0, 3), POISON);
    fill_elements(rng, c->src.bytes, c->segment.src_dtype, count, rarity);
    c->segment.src = c->src.bytes;

    c->expected = malloc(count * dtype_bytes(c->segment.dst_dtype) + 1);
    CHECK(c->expected, "no memory");
    c->segment.dst = c->expected;
    c->expected_bad = fold_scalar.fold(&c->segment);
}

static void free_case(struct fold_case *c)
{
    for (unsigned d = 0; d < c->segment.delta_count; d++) {
        free(c->a_rows[d]);
        guarded_free(&c->a[d]);
        guarded_free(&c->b[d]);
    }
    guarded_free(&c->src);
    free(c->expected);
}

static void check_result(const struct fold_case *c, const char *table, const char *what,
                         const unsigned char *dst)
{
    size_t bytes = dtype_bytes(c->segment.dst_dtype);

    for (size_t i = 0; i < c->segment.count; i++) {
        uint32_t got = 0;
        uint32_t wanted = 0;

        memcpy(&got, dst + i * bytes, bytes);
        memcpy(&wanted, c->expected + i * bytes, bytes);
        CHECK(got == wanted,
              "%s %s, seed %" PRIu64 ", %s to %s, cols %" PRIu64 ", first column %" PRIu64
              ", element %zu of %zu: %x, not %x",
              table, what, c->seed, dtype_name(c->segment.src_dtype),
              dtype_name(c->segment.dst_dtype), c->cols, c->segment.first_col, i, c->segment.count,
              got, wanted);
    }
}

static void check_fold(const struct fold_case *c, const struct fold_ops *ops, bool in_place,
                       bool at_end, size_t slack)
{
    struct fold_segment segment = c->segment;
    struct guarded dst = guarded_alloc(segment.count * dtype_bytes(segment.dst_dtype), at_end,
                                       slack, POISON);
    size_t bad;

    segment.dst = dst.bytes;
    if (in_place) {
        memcpy(dst.bytes, c->src.bytes, c->src.count);
        segment.src = dst.bytes;
    }
    bad = ops->fold(&segment);
    check_result(c, ops->name, in_place ? "in place" : "fold", dst.bytes);
    CHECK(bad == c->expected_bad, "%s, seed %" PRIu64 ": first not finite %zu, not %zu", ops->name,
          c->seed, bad, c->expected_bad);
    CHECK(guarded_intact(&dst, POISON), "%s, seed %" PRIu64 ": wrote outside dst", ops->name,
          c->seed);
    guarded_free(&dst);
}

/* sum = B x A of one delta in pieces of a panel, as for a factor A that is not kept whole. */
static void sum_in_pieces(const struct fold_case *c, const struct fold_ops *ops, unsigned d,
                          float *sum, size_t stride)
{
    const struct fold_delta *delta = &c->deltas[d];

    for (uint32_t k = 0; k < delta->rank; k += FOLD_PANEL) {
        uint32_t rank = delta->rank - k < FOLD_PANEL ? delta->rank - k : FOLD_PANEL;
        struct guarded a = guarded_alloc(fold_packed_floats(rank, c->cols) * sizeof(float), true, 0,
                                         POISON);
        float *packed = (float *)(void *)a.bytes;

        for (uint32_t i = 0; i < rank; i++)
            fold_pack_row(packed, rank, i, c->a_rows[d] + (k + i) * c->cols, c->cols);
        ops->panel_sum(sum, stride, c->rows, c->cols, packed, delta->b + k, delta->rank, rank,
                       k == 0);
        guarded_free(&a);
    }
}

/* decode, panel_sum, add_scaled and encode together are fold(), on whole rows. */
static void check_pieces(const struct fold_case *c, const struct fold_ops *ops, size_t gap)
{
    const size_t count = c->segment.count;
    const size_t stride = c->cols + gap;
    struct guarded w = guarded_alloc(count * sizeof(float), true, 0, POISON);
    struct guarded sum = guarded_alloc(((c->rows - 1) * stride + c->cols) * sizeof(float), true, 0,
                                       POISON);
    struct guarded dst = guarded_alloc(count * dtype_bytes(c->segment.dst_dtype), true, 0, POISON);
    float *w_floats = (float *)(void *)w.bytes;
    float *sum_floats = (float *)(void *)sum.bytes;
    uint32_t bits;
    size_t bad;

    ops->decode(w_floats, c->src.bytes, c->segment.src_dtype, count);
    for (unsigned d = 0; d < c->segment.delta_count; d++) {
        sum_in_pieces(c, ops, d, sum_floats, stride);
        for (uint64_t row = 0; row < c->rows; row++)
            ops->add_scaled(w_floats + row * c->cols, sum_floats + row * stride, c->deltas[d].scale,
                            c->cols);
    }
    bad = ops->encode(dst.bytes, c->segment.dst_dtype, w_floats, count);
    check_result(c, ops->name, "in pieces", dst.bytes);
    CHECK(bad == c->expected_bad, "%s, seed %" PRIu64, ops->name, c->seed);
    for (uint64_t row = 0; row + 1 < c->rows && c->segment.delta_count; row++) {
        for (size_t i = c->cols; i < stride; i++) {
            memcpy(&bits, &sum_floats[row * stride + i], sizeof(bits));
            CHECK(bits == 0xa5a5a5a5, "%s, seed %" PRIu64 ": wrote between rows", ops->name,
                  c->seed);
        }
    }
    guarded_free(&w);
    guarded_free(&sum);
    guarded_free(&dst);
}

static void check_seed(uint64_t seed)
{
    uint64_t rng = seed * UINT64_C(0xd1342543de82ef95);
    struct fold_case c;

    make_case(&c, seed);
    for (const struct fold_ops *const *table = cpu_fold_available(); *table; table++) {
        bool whole_rows = c.segment.first_col == 0 && c.segment.count % c.cols == 0;
        bool same_width = dtype_bytes(c.segment.src_dtype) == dtype_bytes(c.segment.dst_dtype);

        check_fold(&c, *table, false, random_one_in(&rng, 2), random_in(&rng, 0, 3));
        if (same_width)
            check_fold(&c, *table, true, random_one_in(&rng, 2), random_in(&rng, 0, 3));
        if (whole_rows && c.segment.count)
            check_pieces(&c, *table, random_in(&rng, 0, 20));
    }
    free_case(&c);
}

/* decode and encode at every length of a tail, at odd addresses, between guard pages. */
static void check_tails(const struct fold_ops *ops)
{
    uint64_t rng = 1;

    for (size_t count = 0; count <= 200; count++) {
        for (size_t i = 0; i < COUNT_OF(dtypes) * 2; i++) {
            size_t bytes = dtype_bytes(dtypes[i / 2]);
            struct guarded packed = guarded_alloc(count * bytes, i % 2, count % 2, POISON);
            struct guarded floats = guarded_alloc(count * sizeof(float), i % 2, 0, POISON);
            float *values = (float *)(void *)floats.bytes;
            float wanted[200];
            unsigned char wanted_bytes[200 * sizeof(float)];
            size_t bad;

            fill_elements(&rng, packed.bytes, dtypes[i / 2], count, 20);
            fold_scalar.decode(wanted, packed.bytes, dtypes[i / 2], count);
            ops->decode(values, packed.bytes, dtypes[i / 2], count);
            CHECK(count == 0 || memcmp(wanted, values, count * sizeof(float)) == 0,
                  "%s decodes %zu of %s", ops->name, count, dtype_name(dtypes[i / 2]));
            CHECK(guarded_intact(&floats, POISON), "%s decodes %zu", ops->name, count);

            fill_floats(&rng, values, count, 20);
            bad = fold_scalar.encode(wanted_bytes, dtypes[i / 2], values, count);
            memset(packed.bytes, POISON, packed.count);
            CHECK(ops->encode(packed.bytes, dtypes[i / 2], values, count) == bad,
                  "%s encodes %zu to %s", ops->name, count, dtype_name(dtypes[i / 2]));
            CHECK(count == 0 || memcmp(wanted_bytes, packed.bytes, packed.count) == 0,
                  "%s encodes %zu to %s", ops->name, count, dtype_name(dtypes[i / 2]));
            CHECK(guarded_intact(&packed, POISON), "%s encodes %zu", ops->name, count);
            guarded_free(&packed);
            guarded_free(&floats);
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : argc > 1 ? 1 : SEEDS;
    struct fold_environment environment;

    fold_environment_enter(&environment);
    printf("tables:");
    for (const struct fold_ops *const *table = cpu_fold_available(); *table; table++) {
        printf(" %s", (*table)->name);
        check_tails(*table);
    }
    printf("; seeds %" PRIu64 "..%" PRIu64 "\n", first, first + count - 1);
    for (uint64_t seed = first; seed < first + count; seed++)
        check_seed(seed);
    fold_environment_leave(&environment);
    return 0;
}

/*
 * quant_case.h - random quantised tensors, and ranges of them read as quant_reads_of() says
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_KERNEL_QUANT_CASE_H
#define TESTS_KERNEL_QUANT_CASE_H

#include "compute/quant.h"
#include "kernel/kernel_check.h"

#include <inttypes.h>

#define POISON 0xa5

/* A tensor with all of its parts. */
struct quant_case {
    struct quant_matrix matrix;
    struct quant_whole whole;
    unsigned char *parts[QUANT_PART_COUNT];
    uint64_t part_bytes[QUANT_PART_COUNT];
    float *nested;
    uint64_t nested_count;
    uint32_t *group_of;
    uint64_t elements; /* of one matrix, of all where blocks run through */
    uint64_t ranges;   /* how many such there are */
};

static inline uint64_t test_ceil(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit;
}

/* The bytes of `rows` x `cols` fields, worked out apart from src/. */
static inline uint64_t packed_bytes(enum quant_packing packing, unsigned bits, uint64_t rows,
                                    uint64_t cols)
{
    switch (packing) {
    case QUANT_BYTES:
        return rows * cols * bits / 8;
    case QUANT_HIGH_FLAT: /* transposed: rows are of whole blocks, which are even */
        return test_ceil(rows * cols, 2);
    case QUANT_LOW_FIRST:
        return rows * test_ceil(cols, 2);
    case QUANT_WORDS:
    case QUANT_WORDS_AWQ:
        return rows * test_ceil(cols * bits, 32) * 4;
    case QUANT_WORDS_DOWN:
        return cols * test_ceil(rows * bits, 32) * 4;
    case QUANT_BANDS:
        return bits == 3 ? test_ceil(rows, 10) * 4 * cols : rows * bits / 8 * cols;
    }
    return 0;
}

static inline uint64_t zeros_bytes(const struct quant_matrix *m, uint64_t rows, uint64_t cols)
{
    switch (m->zeros) {
    case QUANT_ZEROS_NONE:
    case QUANT_ZEROS_MIDDLE:
        return 0;
    case QUANT_ZEROS_BYTES:
        return rows * cols;
    case QUANT_ZEROS_WORDS:
    case QUANT_ZEROS_WORDS_1:
    case QUANT_ZEROS_AWQ:
        return packed_bytes(QUANT_WORDS, m->bits, rows, cols);
    case QUANT_ZEROS_DOWN:
        return packed_bytes(QUANT_WORDS_DOWN, m->bits, rows, cols);
    case QUANT_ZEROS_NUMBERS:
    case QUANT_ZEROS_BIASES:
        return rows * cols * dtype_bytes(m->scale_dtype);
    }
    return 0;
}

static inline void *test_alloc(uint64_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);

    CHECK(memory, "no memory");
    return memory;
}

/* Memory for all parts of c->matrix; the caller fills them. */
static inline void case_alloc(struct quant_case *c)
{
    const struct quant_matrix *m = &c->matrix;
    uint64_t rows = m->transposed ? m->cols : m->rows;
    uint64_t cols = m->transposed ? m->rows : m->cols;
    uint64_t all = m->matrices * rows * cols;
    uint64_t grid_rows = m->block_rows ? test_ceil(rows, m->block_rows) : 1;
    uint64_t grid_cols = test_ceil(m->block_rows ? cols : all, m->block_cols);
    uint64_t matrices = m->block_rows ? m->matrices : 1;
    struct error err;

    c->elements = m->block_rows ? rows * cols : all;
    c->ranges = matrices;
    c->part_bytes[QUANT_PART_CODES] = m->block_rows
                                          ? matrices * packed_bytes(m->packing, m->bits, rows, cols)
                                          : (all + 1) / 2;
    if (m->codes != QUANT_FLOATS)
        c->part_bytes[QUANT_PART_SCALES] = matrices * grid_rows * grid_cols *
                                           dtype_bytes(m->scale_dtype);
    c->part_bytes[QUANT_PART_ZEROS] = matrices * zeros_bytes(m, grid_rows, grid_cols);
    for (int part = 0; part < QUANT_PART_COUNT; part++)
        c->parts[part] = test_alloc(c->part_bytes[part]);
    c->nested_count = test_ceil(matrices * grid_rows * grid_cols, 256);
    c->nested = test_alloc(c->nested_count * sizeof(float));
    c->group_of = test_alloc(rows * sizeof(uint32_t));
    c->whole.nested = c->nested;
    CHECK(quant_check(m, c->part_bytes, &err) == 0, "%s", err.text);
}

static inline void case_free(struct quant_case *c)
{
    for (int part = 0; part < QUANT_PART_COUNT; part++)
        free(c->parts[part]);
    free(c->nested);
    free(c->group_of);
}

/* What is read of a case for a range, each part between pages that cannot be touched. */
struct quant_pieces {
    struct guarded parts[QUANT_PART_COUNT];
    struct quant_source source;
};

static inline void pieces_read(struct quant_pieces *pieces, const struct quant_case *c,
                               uint64_t first, uint64_t count, bool at_end)
{
    struct quant_reads reads[QUANT_PART_COUNT];

    quant_reads_of(reads, &c->matrix, first, count);
    pieces->source = (struct quant_source){ .whole = &c->whole, .first = first, .count = count };
    for (int part = 0; part < QUANT_PART_COUNT; part++) {
        const struct quant_reads *r = &reads[part];

        CHECK(r->count == 0 ||
                  r->offset + (r->count - 1) * r->stride + r->bytes <= c->part_bytes[part],
              "part %d is read beyond its end", part);
        CHECK(r->count == 1 ? r->stride == 0 : r->bytes <= r->stride, "pieces overlap");
        pieces->parts[part] = guarded_alloc(r->count * r->bytes, at_end, 0, POISON);
        for (uint64_t k = 0; k < r->count; k++)
            memcpy(pieces->parts[part].bytes + k * r->bytes,
                   c->parts[part] + r->offset + k * r->stride, r->bytes);
        pieces->source.parts[part] = pieces->parts[part].bytes;
    }
}

static inline void pieces_free(struct quant_pieces *pieces)
{
    for (int part = 0; part < QUANT_PART_COUNT; part++)
        guarded_free(&pieces->parts[part]);
}

/* The first of `count` numbers that is not finite. */
static inline size_t first_bad(const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if ((f32_bits(x[i]) & F32_MAGNITUDE) >= F32_INFINITY)
            return i;
    }
    return FOLD_FINITE;
}

/* Decode a range of the source with a table; every bit as `expected` has it, which is of 0. */
static inline void compare_range(const struct quant_ops *ops, const struct quant_case *c,
                                 const struct quant_source *source, uint64_t first, size_t count,
                                 const float *expected, bool at_end, uint64_t seed)
{
    struct guarded dst = guarded_alloc(count * sizeof(float), at_end, at_end ? 0 : 4, POISON);
    const float *out = (const float *)(const void *)dst.bytes;
    size_t bad = ops->decode((float *)(void *)dst.bytes, &c->matrix, source, first, count);

    for (size_t i = 0; i < count; i++)
        CHECK(f32_bits(out[i]) == f32_bits(expected[first + i]),
              "seed %" PRIu64 ", %s: element %" PRIu64 " of [%" PRIu64 ", + %zu) is %08" PRIx32
              ", not %08" PRIx32,
              seed, ops->name, first + i, first, count, f32_bits(out[i]),
              f32_bits(expected[first + i]));
    CHECK(bad == first_bad(expected + first, count), "seed %" PRIu64 ", %s: first bad %zu", seed,
          ops->name, bad);
    CHECK(guarded_intact(&dst, POISON), "seed %" PRIu64 ", %s: wrote outside", seed, ops->name);
    guarded_free(&dst);
}

/* All elements by the definition, each matrix read as a whole. */
static inline float *decode_all(const struct quant_case *c)
{
    float *all = test_alloc(c->elements * c->ranges * sizeof(float));

    for (uint64_t r = 0; r < c->ranges; r++) {
        struct quant_pieces pieces;

        pieces_read(&pieces, c, r * c->elements, c->elements, true);
        quant_scalar.decode(all + r * c->elements, &c->matrix, &pieces.source, r * c->elements,
                            c->elements);
        pieces_free(&pieces);
    }
    return all;
}

#endif

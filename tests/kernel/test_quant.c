/*
 * Every table of quant operations must give the bits of quant_scalar, which is the definition, for
 * every range of elements.  test_quant_golden.c checks the definition itself.
 *
 * usage: test_quant [FIRST_SEED [COUNT]]
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/cpu.h"
#include "kernel/quant_case.h"

#define SEEDS 1200

struct scheme {
    enum quant_codes codes;
    enum quant_packing packing;
    unsigned bits;
    enum quant_scale scale;
    enum quant_zeros zeros;
    bool transposed;
};

static const struct scheme schemes[] = {
    { QUANT_NF4, QUANT_HIGH_FLAT, 4, QUANT_SCALE_PLAIN, QUANT_ZEROS_NONE, false },
    { QUANT_NF4, QUANT_HIGH_FLAT, 4, QUANT_SCALE_NESTED, QUANT_ZEROS_NONE, false },
    { QUANT_FP4_BNB, QUANT_HIGH_FLAT, 4, QUANT_SCALE_PLAIN, QUANT_ZEROS_NONE, false },
    { QUANT_FP4_BNB, QUANT_HIGH_FLAT, 4, QUANT_SCALE_NESTED, QUANT_ZEROS_NONE, false },
    { QUANT_E2M1, QUANT_LOW_FIRST, 4, QUANT_SCALE_PLAIN, QUANT_ZEROS_NONE, false },
    { QUANT_NF4, QUANT_HIGH_FLAT, 4, QUANT_SCALE_PLAIN, QUANT_ZEROS_NONE, true },
    { QUANT_FP4_BNB, QUANT_HIGH_FLAT, 4, QUANT_SCALE_NESTED, QUANT_ZEROS_NONE, true },
    { QUANT_E2M1, QUANT_LOW_FIRST, 4, QUANT_SCALE_PLAIN, QUANT_ZEROS_NONE, true },
    { QUANT_E2M1, QUANT_LOW_FIRST, 4, QUANT_SCALE_TIMES_WHOLE, QUANT_ZEROS_NONE, false },
    { QUANT_E2M1, QUANT_LOW_FIRST, 4, QUANT_SCALE_OVER_WHOLE, QUANT_ZEROS_NONE, false },
    { QUANT_E4M3, QUANT_BYTES, 8, QUANT_SCALE_PLAIN, QUANT_ZEROS_NONE, false },
    { QUANT_E4M3, QUANT_BYTES, 8, QUANT_SCALE_PLAIN, QUANT_ZEROS_NONE, true },
    { QUANT_SIGNED, QUANT_BYTES, 8, QUANT_SCALE_ROW_127, QUANT_ZEROS_NONE, false },
    { QUANT_SIGNED, QUANT_BYTES, 8, QUANT_SCALE_PLAIN, QUANT_ZEROS_NONE, false },
    { QUANT_SIGNED, QUANT_BYTES, 8, QUANT_SCALE_PLAIN, QUANT_ZEROS_BYTES, false },
    { QUANT_UNSIGNED, QUANT_WORDS, 0, QUANT_SCALE_PLAIN, QUANT_ZEROS_MIDDLE, false },
    { QUANT_UNSIGNED, QUANT_WORDS, 0, QUANT_SCALE_PLAIN, QUANT_ZEROS_BYTES, false },
    { QUANT_UNSIGNED, QUANT_WORDS, 0, QUANT_SCALE_PLAIN, QUANT_ZEROS_DOWN, false },
    { QUANT_UNSIGNED, QUANT_WORDS, 0, QUANT_SCALE_PLAIN, QUANT_ZEROS_WORDS, true },
    { QUANT_UNSIGNED, QUANT_WORDS_DOWN, 0, QUANT_SCALE_PLAIN, QUANT_ZEROS_WORDS, true },
    { QUANT_UNSIGNED, QUANT_WORDS_DOWN, 0, QUANT_SCALE_PLAIN, QUANT_ZEROS_WORDS_1, true },
    { QUANT_UNSIGNED, QUANT_WORDS_DOWN, 0, QUANT_SCALE_PLAIN, QUANT_ZEROS_DOWN, true },
    { QUANT_UNSIGNED, QUANT_WORDS_AWQ, 4, QUANT_SCALE_PLAIN, QUANT_ZEROS_AWQ, true },
    { QUANT_UNSIGNED, QUANT_BYTES, 8, QUANT_SCALE_PLAIN, QUANT_ZEROS_NUMBERS, false },
    { QUANT_UNSIGNED, QUANT_BANDS, 4, QUANT_SCALE_PLAIN, QUANT_ZEROS_NUMBERS, false },
    { QUANT_UNSIGNED, QUANT_BANDS, 3, QUANT_SCALE_PLAIN, QUANT_ZEROS_NUMBERS, false },
    { QUANT_UNSIGNED, QUANT_BANDS, 2, QUANT_SCALE_PLAIN, QUANT_ZEROS_NUMBERS, false },
    { QUANT_UNSIGNED, QUANT_BANDS, 1, QUANT_SCALE_PLAIN, QUANT_ZEROS_NUMBERS, false },
    { QUANT_UNSIGNED, QUANT_WORDS_DOWN, 0, QUANT_SCALE_PLAIN, QUANT_ZEROS_NUMBERS, true },
    { QUANT_UNSIGNED, QUANT_WORDS, 0, QUANT_SCALE_PLAIN, QUANT_ZEROS_BIASES, false },
    { QUANT_UNSIGNED, QUANT_WORDS, 5, QUANT_SCALE_PLAIN, QUANT_ZEROS_BIASES, false },
    { QUANT_UNSIGNED, QUANT_WORDS, 6, QUANT_SCALE_PLAIN, QUANT_ZEROS_BIASES, false },
    { QUANT_FLOATS, QUANT_BYTES, 8, QUANT_SCALE_PLAIN, QUANT_ZEROS_NONE, true },
};

static const unsigned widths[] = { 2, 3, 4, 8 };

/* Zero points and biases that are numbers of the result's dtype. */
static bool are_numbers(enum quant_zeros zeros)
{
    return zeros == QUANT_ZEROS_NUMBERS || zeros == QUANT_ZEROS_BIASES;
}

static enum dtype random_scale_dtype(uint64_t *rng, enum quant_scale scale)
{
    static const enum dtype plain[] = { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F8_E4M3,
                                        DTYPE_F8_E8M0 };

    switch (scale) {
    case QUANT_SCALE_NESTED:
        return DTYPE_U8;
    case QUANT_SCALE_TIMES_WHOLE:
    case QUANT_SCALE_OVER_WHOLE:
        return DTYPE_F8_E4M3;
    case QUANT_SCALE_ROW_127:
        return DTYPE_F32;
    default:
        return plain[random_in(rng, 0, COUNT_OF(plain) - 1)];
    }
}

static uint64_t random_block(uint64_t *rng, uint64_t size)
{
    static const uint64_t usual[] = { 1, 1, 16, 32, 64, 128 };

    if (random_one_in(rng, 6))
        return size;
    if (random_one_in(rng, 4))
        return random_in(rng, 1, 70);
    return usual[random_in(rng, 0, COUNT_OF(usual) - 1)];
}

static void random_matrix(struct quant_matrix *m, uint64_t *rng, bool small)
{
    static const enum dtype results[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    static const uint64_t sizes[] = { 4304, 96, 80, 1024, 513 };
    const struct scheme *scheme = &schemes[random_in(rng, 0, COUNT_OF(schemes) - 1)];

    *m = (struct quant_matrix){
        .matrices = random_in(rng, 1, small ? 2 : 3),
        .rows = random_in(rng, 1, small ? 5 : 80),
        .cols = random_in(rng, 1, small ? 9 : 300),
        .transposed = scheme->transposed,
        .codes = scheme->codes,
        .packing = scheme->packing,
        .bits = scheme->bits ? scheme->bits : widths[random_in(rng, 0, 3)],
        .scale = scheme->scale,
        .scale_dtype = random_scale_dtype(rng, scheme->scale),
        .zeros = scheme->zeros,
        .result_dtype = results[random_in(rng, 0, 2)],
    };
    if (!small && random_one_in(rng, 4)) {
        m->cols = sizes[random_in(rng, 0, COUNT_OF(sizes) - 1)];
        m->rows = random_in(rng, 1, 20);
    }
    if (m->packing == QUANT_BANDS && m->bits != 3)
        m->rows = test_ceil(m->rows, 8 / m->bits) * (8 / m->bits);
    if (are_numbers(m->zeros) || m->codes == QUANT_FLOATS)
        m->scale_dtype = m->result_dtype;
    if (m->codes == QUANT_FLOATS)
        m->bits = dtype_bits(m->scale_dtype);
    m->block_cols = random_block(rng, m->transposed ? m->rows : m->cols);
    if (m->packing != QUANT_HIGH_FLAT)
        m->block_rows = random_block(rng, m->transposed ? m->cols : m->rows);
    if (m->packing == QUANT_HIGH_FLAT && m->transposed) { /* a Conv1D: whole blocks in a row */
        m->block_rows = 1;
        m->block_cols = 2 * test_ceil(m->block_cols, 2);
        m->rows = m->block_cols * test_ceil(m->rows, m->block_cols);
    }
}

/* Scales, or zeros of their dtype; with rarity 0 no result is infinite or NaN. */
static void fill_scales(uint64_t *rng, struct quant_case *c, enum quant_part part, uint64_t rarity)
{
    const enum dtype dtype = c->matrix.scale_dtype;
    const size_t bytes = dtype_bytes(dtype);
    unsigned char *scales = c->parts[part];

    for (uint64_t i = 0; i < c->part_bytes[part]; i += bytes) {
        uint32_t word = f32_bits(random_value(rng, rarity));
        uint16_t half = dtype == DTYPE_BF16 ? bf16_encode(word) : f16_encode(word);
        uint8_t byte = (uint8_t)random_next(rng);

        if (rarity && random_one_in(rng, 4))
            half = (uint16_t)random_next(rng);
        if (!rarity && dtype == DTYPE_F8_E8M0)
            byte = (uint8_t)random_in(rng, 90, 128);
        if (!rarity && dtype == DTYPE_F8_E4M3)
            byte = (uint8_t)random_in(rng, 0, 63);
        memcpy(scales + i,
               bytes == 1   ? (void *)&byte
               : bytes == 2 ? (void *)&half
                            : (void *)&word,
               bytes);
    }
}

static void fill_case(struct quant_case *c, uint64_t *rng, uint64_t rarity)
{
    uint64_t groups;

    fill_scales(rng, c, QUANT_PART_SCALES, rarity);
    for (uint64_t i = 0; i < c->part_bytes[QUANT_PART_CODES]; i++) {
        c->parts[QUANT_PART_CODES][i] = (unsigned char)random_next(rng);
        if (c->matrix.codes == QUANT_E4M3 && !(rarity && random_one_in(rng, 4 * rarity)))
            c->parts[QUANT_PART_CODES][i] &= 0xf7; /* no NaN */
    }
    if (c->matrix.codes == QUANT_FLOATS)
        fill_scales(rng, c, QUANT_PART_CODES, rarity);
    for (uint64_t i = 0; i < c->part_bytes[QUANT_PART_ZEROS]; i++)
        c->parts[QUANT_PART_ZEROS][i] = (unsigned char)random_next(rng);
    if (are_numbers(c->matrix.zeros))
        fill_scales(rng, c, QUANT_PART_ZEROS, rarity);
    fill_floats(rng, c->whole.map, 256, rarity ? rarity * 100 : 0);
    fill_floats(rng, c->nested, c->nested_count, rarity);
    c->whole.offset = random_value(rng, rarity);
    c->whole.whole = random_unit(rng) + 1.5f;
    if (c->matrix.transposed && random_one_in(rng, 2)) {
        groups = test_ceil(c->matrix.cols, c->matrix.block_rows);
        for (uint64_t i = 0; i < c->matrix.cols; i++)
            c->group_of[i] = (uint32_t)random_in(rng, 0, groups - 1);
        c->whole.group_of = c->group_of;
    }
}

static void random_case(struct quant_case *c, uint64_t seed, bool small)
{
    static const uint64_t rarities[] = { 0, 0, 0, 3, 50, 1000 };
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t rarity = rarities[random_in(&state, 0, COUNT_OF(rarities) - 1)];

    *c = (struct quant_case){ 0 };
    random_matrix(&c->matrix, &state, small);
    case_alloc(c);
    fill_case(c, &state, rarity);
}

/* Ranges in ranges: what is read is a range of a matrix, what is decoded one of that. */
static void check_ranges(const struct quant_case *c, uint64_t seed)
{
    const struct quant_ops *const *tables = cpu_quant_available();
    float *expected = decode_all(c);
    uint64_t state = seed * UINT64_C(0xd1342543de82ef95) + 1;
    uint64_t *rng = &state;

    for (unsigned turn = 0; turn < 6; turn++) {
        uint64_t base = random_in(rng, 0, c->ranges - 1) * c->elements;
        uint64_t first = turn ? random_in(rng, 0, c->elements - 1) : 0;
        uint64_t count = turn ? random_in(rng, 1, c->elements - first) : c->elements;
        struct quant_pieces pieces;

        pieces_read(&pieces, c, base + first, count, turn % 2 == 0);
        for (unsigned t = 0; tables[t]; t++) {
            uint64_t skip = random_one_in(rng, 2) ? 0 : random_in(rng, 0, count);
            uint64_t part = random_one_in(rng, 2) ? count - skip : random_in(rng, 0, count - skip);

            compare_range(tables[t], c, &pieces.source, base + first + skip, part, expected,
                          random_one_in(rng, 2), seed);
        }
        pieces_free(&pieces);
    }
    free(expected);
}

/* Every start and every length, read as such. */
static void check_every_range(const struct quant_case *c, uint64_t seed)
{
    const struct quant_ops *const *tables = cpu_quant_available();
    float *expected = decode_all(c);
    uint64_t base = (c->ranges - 1) * c->elements;
    struct quant_pieces pieces;

    for (uint64_t first = 0; first < c->elements; first++) {
        for (uint64_t count = 1; count <= c->elements - first; count++) {
            pieces_read(&pieces, c, base + first, count, count % 2);
            for (unsigned t = 0; tables[t]; t++)
                compare_range(tables[t], c, &pieces.source, base + first, count, expected,
                              first % 2, seed);
            pieces_free(&pieces);
        }
    }
    free(expected);
}

/* One row for each scale of 8 bits, in each all 256 bytes of codes. */
static void check_bytes(struct scheme scheme, enum dtype scale_dtype, enum dtype result)
{
    const struct quant_ops *const *tables = cpu_quant_available();
    const uint64_t cols = 256 * 8 / scheme.bits;
    struct quant_case c = { .matrix = { .matrices = 1,
                                        .rows = 256,
                                        .cols = cols,
                                        .codes = scheme.codes,
                                        .packing = scheme.packing,
                                        .bits = scheme.bits,
                                        .scale = scheme.scale,
                                        .scale_dtype = scale_dtype,
                                        .zeros = scheme.zeros,
                                        .block_rows = scheme.packing != QUANT_HIGH_FLAT,
                                        .block_cols = cols,
                                        .result_dtype = result } };
    struct quant_pieces pieces;
    float *expected;

    case_alloc(&c);
    for (unsigned i = 0; i < 256; i++) {
        c.parts[QUANT_PART_SCALES][i] = (unsigned char)i;
        c.whole.map[i] = (float)i / 16 - 8;
        for (unsigned k = 0; k < 256; k++)
            c.parts[QUANT_PART_CODES][256 * i + k] = (unsigned char)k;
    }
    c.nested[0] = 0.75f;
    c.whole.offset = 0.375f;
    c.whole.whole = 0.0371f;
    expected = decode_all(&c);
    for (uint64_t i = 0; i < 256; i++) {
        pieces_read(&pieces, &c, cols * i, cols, true);
        for (unsigned t = 0; tables[t]; t++) {
            compare_range(tables[t], &c, &pieces.source, cols * i, cols, expected, true, i);
            /* By 16 codes, so that a NaN among them leaves the others to the vectors. */
            for (uint64_t k = cols * i; k + 16 <= cols * (i + 1); k += 16) {
                float some[16];

                tables[t]->decode(some, &c.matrix, &pieces.source, k, 16);
                CHECK(memcmp(some, expected + k, sizeof(some)) == 0,
                      "%s: scale %02" PRIx64 ", from %" PRIu64 " on", tables[t]->name, i, k);
            }
        }
        pieces_free(&pieces);
    }
    free(expected);
    case_free(&c);
}

static void check_scheme_bytes(struct scheme scheme)
{
    static const enum dtype results[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };

    for (unsigned r = 0; r < COUNT_OF(results); r++) {
        if (scheme.scale == QUANT_SCALE_NESTED)
            check_bytes(scheme, DTYPE_U8, results[r]);
        else
            check_bytes(scheme, DTYPE_F8_E4M3, results[r]);
        if (scheme.scale == QUANT_SCALE_PLAIN)
            check_bytes(scheme, DTYPE_F8_E8M0, results[r]);
    }
}

static void check_all_bytes(void)
{
    for (unsigned s = 0; s < COUNT_OF(schemes); s++) {
        struct scheme scheme = schemes[s];

        if (scheme.transposed || scheme.scale == QUANT_SCALE_ROW_127 ||
            (scheme.zeros != QUANT_ZEROS_NONE && scheme.zeros != QUANT_ZEROS_MIDDLE))
            continue;
        for (unsigned w = 0; w < COUNT_OF(widths) && !schemes[s].bits; w++) {
            scheme.bits = widths[w];
            check_scheme_bytes(scheme);
        }
        if (schemes[s].bits)
            check_scheme_bytes(scheme);
    }
}

/* Numbers that are not quantised are those that lie there, turned. */
static void check_floats(void)
{
    struct quant_case c = { .matrix = { .matrices = 1,
                                        .rows = 37,
                                        .cols = 80,
                                        .transposed = true,
                                        .codes = QUANT_FLOATS,
                                        .packing = QUANT_BYTES,
                                        .bits = 16,
                                        .scale_dtype = DTYPE_BF16,
                                        .block_rows = 1,
                                        .block_cols = 1,
                                        .result_dtype = DTYPE_BF16 } };
    float *decoded;

    case_alloc(&c);
    for (unsigned i = 0; i < 37 * 80; i++) {
        uint16_t half = (uint16_t)(0x3f80 + i);

        memcpy(c.parts[QUANT_PART_CODES] + i * sizeof(half), &half, sizeof(half));
    }
    decoded = decode_all(&c);
    for (unsigned row = 0; row < 37; row++) {
        for (unsigned col = 0; col < 80; col++)
            CHECK(f32_bits(decoded[row * 80 + col]) == (0x3f80 + col * 37 + row) << 16,
                  "row %u, column %u", row, col);
    }
    free(decoded);
    case_free(&c);
}

/* DeepSeek's kv_a_proj: 4.5 blocks of rows; a grid by rows / scale rows would be wrong. */
static void check_ragged(void)
{
    struct quant_case c = { .matrix = { .matrices = 1,
                                        .rows = 576,
                                        .cols = 7168,
                                        .codes = QUANT_E4M3,
                                        .packing = QUANT_BYTES,
                                        .bits = 8,
                                        .scale_dtype = DTYPE_F32,
                                        .block_rows = 128,
                                        .block_cols = 128,
                                        .result_dtype = DTYPE_BF16 } };
    const float *scales;
    float *all;

    case_alloc(&c);
    CHECK(c.part_bytes[QUANT_PART_SCALES] == 5 * 56 * 4, "a grid of 5 x 56");
    memset(c.parts[QUANT_PART_CODES], 0x38, c.part_bytes[QUANT_PART_CODES]); /* 1.0 */
    for (unsigned i = 0; i < 5 * 56; i++) {
        float scale = (float)i;

        memcpy(c.parts[QUANT_PART_SCALES] + 4 * i, &scale, 4);
    }
    scales = (const float *)(const void *)c.parts[QUANT_PART_SCALES];
    all = decode_all(&c);
    for (uint64_t i = 0; i < c.elements; i++) {
        uint32_t bits = f32_bits(scales[i / 7168 / 128 * 56 + i % 7168 / 128]);

        CHECK(f32_bits(all[i]) == bf16_decode(bf16_encode(bits)), "element %" PRIu64, i);
    }
    check_ranges(&c, 576);
    free(all);
    case_free(&c);
}

/* Fields of three bits that words cut, along and down, of codes and of zero points. */
static void check_three_bits(bool transposed, uint64_t rows, uint64_t cols, enum quant_zeros zeros)
{
    struct quant_case c = { .matrix = { .matrices = 1,
                                        .rows = rows,
                                        .cols = cols,
                                        .transposed = transposed,
                                        .codes = QUANT_UNSIGNED,
                                        .packing = transposed ? QUANT_WORDS_DOWN : QUANT_WORDS,
                                        .bits = 3,
                                        .scale_dtype = DTYPE_F16,
                                        .block_rows = 1,
                                        .block_cols = 1,
                                        .zeros = zeros,
                                        .result_dtype = DTYPE_F32 } };
    uint64_t state = 3 + rows;

    case_alloc(&c);
    fill_case(&c, &state, 0);
    c.whole.group_of = NULL;
    check_every_range(&c, 3);
    case_free(&c);
}

static void check_all_three_bits(void)
{
    static const enum quant_zeros zeros[] = { QUANT_ZEROS_WORDS, QUANT_ZEROS_WORDS_1,
                                              QUANT_ZEROS_DOWN };

    for (unsigned z = 0; z < COUNT_OF(zeros); z++) {
        check_three_bits(false, 36, 2, zeros[z]);
        check_three_bits(false, 2, 36, zeros[z]);
        check_three_bits(true, 36, 2, zeros[z]);
        check_three_bits(true, 2, 36, zeros[z]);
    }
}

static void check_tables(void)
{
    const struct fold_ops *const *folds = cpu_fold_available();
    const struct quant_ops *const *quants = cpu_quant_available();

    CHECK(cpu_quant_find(NULL) == quants[0], "the best one");
    CHECK(cpu_quant_find("none") == NULL, "no such table");
    for (unsigned t = 0; folds[t] || quants[t]; t++) {
        CHECK(folds[t] && quants[t] && strcmp(folds[t]->name, quants[t]->name) == 0, "same names");
        CHECK(cpu_quant_find(quants[t]->name) == quants[t], "by name");
    }
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : SEEDS;
    struct fold_environment environment;
    struct quant_case c;
    uint64_t finite = 0;

    fold_environment_enter(&environment);
    check_tables();
    check_floats();
    check_ragged();
    check_all_bytes();
    check_all_three_bits();
    printf("seeds %" PRIu64 " to %" PRIu64 "\n", first, first + count - 1);
    for (uint64_t seed = first; seed < first + count; seed++) {
        float *all;

        random_case(&c, seed, false);
        all = decode_all(&c);
        finite += first_bad(all, c.elements * c.ranges) == FOLD_FINITE;
        free(all);
        check_ranges(&c, seed);
        case_free(&c);
        if (seed % 16 == 0) {
            random_case(&c, seed, true);
            check_every_range(&c, seed);
            case_free(&c);
        }
    }
    fold_environment_leave(&environment);
    printf("%" PRIu64 " of %" PRIu64 " finite throughout\n", finite, count);
    CHECK(finite >= count / 4, "the vectors must be what is tested");
    return 0;
}

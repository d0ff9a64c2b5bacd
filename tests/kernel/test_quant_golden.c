/*
 * Quantised tensors as tests/golden/make_quant.py wrote them, decoded by every table: the numbers
 * are those of the packages that made them.
 *
 * usage: test_quant_golden [DIRECTORY]
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/cpu.h"
#include "kernel/golden_files.h"
#include "kernel/quant_case.h"

#define FIELDS 21 /* of the head, after LFQUANT1 */

struct golden {
    struct quant_case c;
    unsigned char *expected; /* in the result dtype */
};

static void golden_read(struct golden *golden, const char *path)
{
    struct quant_case *c = &golden->c;
    FILE *file = golden_open(path, "LFQUANT1");
    uint64_t field[FIELDS];
    uint64_t count;

    golden_bytes(file, field, sizeof(field), path);
    *c = (struct quant_case){
        .matrix = { .matrices = field[0],
                    .rows = field[1],
                    .cols = field[2],
                    .transposed = field[3] != 0,
                    .codes = (enum quant_codes)field[4],
                    .packing = (enum quant_packing)field[5],
                    .bits = (unsigned)field[6],
                    .scale = (enum quant_scale)field[7],
                    .scale_dtype = (enum dtype)field[8],
                    .block_rows = field[9],
                    .block_cols = field[10],
                    .zeros = (enum quant_zeros)field[11],
                    .result_dtype = (enum dtype)field[12] },
        .whole = { .offset = f32_from_bits((uint32_t)field[13]),
                   .whole = f32_from_bits((uint32_t)field[14]) },
    };
    case_alloc(c);
    for (int part = 0; part < QUANT_PART_COUNT; part++) {
        CHECK(c->part_bytes[part] == field[18 + part], "'%s': part %d", path, part);
        golden_bytes(file, c->parts[part], c->part_bytes[part], path);
    }
    if (field[17])
        golden_bytes(file, c->whole.map, sizeof(c->whole.map), path);
    CHECK(field[15] == 0 || field[15] == c->nested_count, "'%s': nested", path);
    golden_bytes(file, c->nested, field[15] * sizeof(float), path);
    CHECK(field[16] == 0 || field[16] == c->matrix.cols, "'%s': groups", path);
    golden_bytes(file, c->group_of, field[16] * sizeof(uint32_t), path);
    if (field[16])
        c->whole.group_of = c->group_of;
    count = c->elements * c->ranges;
    golden->expected = test_alloc(count * dtype_bytes(c->matrix.result_dtype));
    golden_bytes(file, golden->expected, count * dtype_bytes(c->matrix.result_dtype), path);
    golden_close(file, path);
}

/* What the package gives as fp32, a NaN as the canonical one. */
static uint32_t expected_bits(const struct golden *golden, uint64_t i)
{
    const enum dtype dtype = golden->c.matrix.result_dtype;
    const unsigned char *at = golden->expected + i * dtype_bytes(dtype);
    uint16_t half;
    uint32_t word;

    memcpy(&half, at, sizeof(half));
    if (dtype == DTYPE_BF16)
        word = bf16_decode(half);
    else if (dtype == DTYPE_F16)
        word = f16_decode(half);
    else
        memcpy(&word, at, sizeof(word));
    return f32_encode(word);
}

static void check_file(const char *path)
{
    const struct quant_ops *const *tables = cpu_quant_available();
    struct golden golden;
    struct error err;

    golden_read(&golden, path);
    CHECK(quant_check_whole(&golden.c.matrix, &golden.c.whole, &err) == 0, "%s", err.text);
    for (uint64_t r = 0; r < golden.c.ranges; r++) {
        uint64_t first = r * golden.c.elements;
        float *out = test_alloc(golden.c.elements * sizeof(float));
        struct quant_pieces pieces;

        pieces_read(&pieces, &golden.c, first, golden.c.elements, true);
        for (unsigned t = 0; tables[t]; t++) {
            tables[t]->decode(out, &golden.c.matrix, &pieces.source, first, golden.c.elements);
            for (uint64_t i = 0; i < golden.c.elements; i++) {
                uint32_t bits = f32_bits(out[i]);
                uint32_t expected = expected_bits(&golden, first + i);

                /* bitsandbytes gives FP4's code 8 a sign on some machines. */
                if (golden.c.matrix.codes == QUANT_FP4_BNB && (bits | expected) == 0x80000000)
                    continue;
                CHECK(bits == expected,
                      "'%s', %s: element %" PRIu64 " is %08" PRIx32 ", not %08" PRIx32, path,
                      tables[t]->name, first + i, bits, expected);
            }
        }
        pieces_free(&pieces);
        free(out);
    }
    free(golden.expected);
    case_free(&golden.c);
}

int main(int argc, char **argv)
{
    golden_each(argc > 1 ? argv[1] : SOURCE_DIR "/tests/golden/quant", 70, check_file);
    return 0;
}

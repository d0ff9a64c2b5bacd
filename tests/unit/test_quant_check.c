/*
 * What quant_check() refuses, and how much of a tensor is read for a block of output.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

/* NF4 of bitsandbytes: 128 x 96 in blocks of 64. */
static const struct quant_matrix nf4 = {
    .matrices = 1,
    .rows = 128,
    .cols = 96,
    .codes = QUANT_NF4,
    .packing = QUANT_HIGH_FLAT,
    .bits = 4,
    .scale_dtype = DTYPE_F32,
    .block_cols = 64,
    .result_dtype = DTYPE_BF16,
};

/* GPTQ: 96 inputs, 64 outputs, groups of 32. */
static const struct quant_matrix gptq = {
    .matrices = 1,
    .rows = 64,
    .cols = 96,
    .transposed = true,
    .codes = QUANT_UNSIGNED,
    .packing = QUANT_WORDS_DOWN,
    .bits = 4,
    .scale_dtype = DTYPE_F16,
    .block_rows = 32,
    .block_cols = 1,
    .zeros = QUANT_ZEROS_WORDS_1,
    .result_dtype = DTYPE_F16,
};

/* HQQ: bands of 12 of 24 rows, groups of 16. */
static const struct quant_matrix hqq = {
    .matrices = 1,
    .rows = 24,
    .cols = 32,
    .codes = QUANT_UNSIGNED,
    .packing = QUANT_BANDS,
    .bits = 4,
    .scale_dtype = DTYPE_BF16,
    .block_rows = 1,
    .block_cols = 16,
    .zeros = QUANT_ZEROS_NUMBERS,
    .result_dtype = DTYPE_BF16,
};

static void refused(const struct quant_matrix *matrix, uint64_t codes, uint64_t scales,
                    uint64_t zeros, const char *sentence)
{
    uint64_t bytes[QUANT_PART_COUNT] = { codes, scales, zeros };
    struct error err = { 0 };

    assert_int_equal(quant_check(matrix, bytes, &err), ERR_FORMAT);
    assert_string_equal(err.text, sentence);
}

static void accepted(const struct quant_matrix *matrix, uint64_t codes, uint64_t scales,
                     uint64_t zeros)
{
    uint64_t bytes[QUANT_PART_COUNT] = { codes, scales, zeros };
    struct error err = { 0 };

    assert_int_equal(quant_check(matrix, bytes, &err), 0);
}

static void test_quant_check__sizes(void **state)
{
    struct quant_matrix odd = nf4;

    (void)state;
    accepted(&nf4, 6144, 768, 0);
    refused(
        &nf4, 6143, 768, 0,
        "its codes have 6143 bytes and its shape [1, 128, 96] with blocks of 0 x 64 needs 6144");
    refused(&nf4, 6144, 764, 0,
            "its scales have 764 bytes and its shape [1, 128, 96] with blocks of 0 x 64 needs 768");
    refused(
        &nf4, 6144, 768, 1,
        "its zero points have 1 bytes and its shape [1, 128, 96] with blocks of 0 x 64 needs 0");
    odd.rows = 3;
    odd.cols = 43; /* 129 elements: 65 bytes, three blocks */
    accepted(&odd, 65, 12, 0);
    accepted(&gptq, 96 / 8 * 64 * 4, 3 * 64 * 2, 3 * 8 * 4);
    refused(
        &gptq, 96 / 8 * 64 * 4, 3 * 64 * 2, 0,
        "its zero points have 0 bytes and its shape [1, 64, 96] with blocks of 32 x 1 needs 96");
}

static void test_quant_check__sizes_that_overflow(void **state)
{
    struct quant_matrix large = nf4;

    (void)state;
    large.rows = UINT64_MAX / 96 + 1;
    refused(&large, 0, 0, 0,
            "a quantised weight of shape [1, 192153584101141163, 96] is empty or too large");
    large.rows = 0;
    refused(&large, 0, 0, 0, "a quantised weight of shape [1, 0, 96] is empty or too large");
    large.rows = UINT64_MAX / 96;
    large.block_cols = 1; /* four bytes of scale for each element */
    refused(&large, (large.rows * 96 + 1) / 2, 0, 0, "the size of its scales overflows");
    large = gptq;
    large.rows = 1;
    large.cols = UINT64_MAX;
    refused(&large, 0, 0, 0, "the size of its codes overflows");
}

static void test_quant_check__schemes(void **state)
{
    static const char bits[] = "weights of 5 bits in this packing are not decoded";
    struct quant_matrix m = gptq;

    (void)state;
    m.bits = 5;
    refused(&m, 0, 0, 0, bits);
    m = gptq;
    m.transposed = false;
    refused(&m, 0, 0, 0, "weights of 4 bits in this packing are not decoded");
    m = gptq;
    m.zeros = QUANT_ZEROS_NONE;
    refused(&m, 0, 0, 0, "these zero points do not belong to such codes");
    m = nf4;
    m.zeros = QUANT_ZEROS_BYTES;
    refused(&m, 0, 0, 0, "these zero points do not belong to such codes");
    m = nf4;
    m.scale_dtype = DTYPE_U8; /* nested scales without what they are nested in */
    refused(&m, 0, 0, 0, "scales of dtype U8 do not belong to such codes");
    m = nf4;
    m.result_dtype = DTYPE_F64;
    refused(&m, 0, 0, 0, "quantised weights are decoded to BF16, F16 or F32, not to F64");
    m = nf4;
    m.block_cols = 0;
    refused(&m, 0, 0, 0, "a block of 0 x 0 weights is not decoded");
    m = nf4;
    m.block_rows = 1;
    refused(&m, 0, 0, 0, "a block of 1 x 64 weights is not decoded");
    m = gptq;
    m.block_rows = 0;
    refused(&m, 0, 0, 0, "a block of 0 x 1 weights is not decoded");
}

static void test_quant_check__numbers(void **state)
{
    struct quant_matrix m = hqq;

    (void)state;
    accepted(&m, 12 * 32, 24 * 2 * 2, 24 * 2 * 2);
    refused(&m, 12 * 32, 24 * 2 * 2, 24 * 2,
            "its zero points have 48 bytes and its shape [1, 24, 32] with blocks of 1 x 16 needs "
            "96");
    m.rows = 23;
    refused(&m, 0, 0, 0, "weights of 4 bits in this packing are not decoded");
    m = hqq;
    m.result_dtype = DTYPE_F32; /* zero points are worked with in the dtype of the result */
    refused(&m, 0, 0, 0, "these zero points do not belong to such codes");
    m = hqq;
    m.codes = QUANT_SIGNED;
    m.packing = QUANT_BYTES;
    m.bits = 8;
    refused(&m, 0, 0, 0, "these zero points do not belong to such codes");
    m = hqq;
    m.packing = QUANT_WORDS;
    m.bits = 5;
    refused(&m, 0, 0, 0, "weights of 5 bits in this packing are not decoded");
    m.zeros = QUANT_ZEROS_BIASES;
    accepted(&m, 24 * 5 * 4, 24 * 2 * 2, 24 * 2 * 2);
}

static void test_quant_check_whole(void **state)
{
    struct quant_matrix m = nf4;
    struct quant_whole whole = { .whole = INFINITY };
    uint32_t group_of[96] = { 0 };
    struct error err;

    (void)state;
    assert_int_equal(quant_check_whole(&m, &whole, &err), 0); /* not used */
    m.scale = QUANT_SCALE_OVER_WHOLE;
    assert_int_equal(quant_check_whole(&m, &whole, &err), ERR_FORMAT);
    assert_string_equal(err.text, "its global scale is inf and must be finite and not 0");
    whole.whole = 0.0f;
    assert_int_equal(quant_check_whole(&m, &whole, &err), ERR_FORMAT);
    whole.whole = 2.0f;
    assert_int_equal(quant_check_whole(&m, &whole, &err), 0);
    whole.group_of = group_of;
    assert_int_equal(quant_check_whole(&m, &whole, &err), ERR_FORMAT);
    group_of[95] = 2;
    assert_int_equal(quant_check_whole(&gptq, &whole, &err), 0);
    group_of[95] = 3;
    assert_int_equal(quant_check_whole(&gptq, &whole, &err), ERR_FORMAT);
    assert_string_equal(err.text, "input 95 is in group 3 of 3");
}

static void expect(const struct quant_reads *reads, uint64_t offset, uint64_t bytes,
                   uint64_t stride, uint64_t count)
{
    assert_int_equal(reads->offset, offset);
    assert_int_equal(reads->bytes, bytes);
    assert_int_equal(reads->stride, stride);
    assert_int_equal(reads->count, count);
}

static void test_quant_reads_of(void **state)
{
    struct quant_reads reads[QUANT_PART_COUNT];
    struct quant_matrix m = nf4;

    (void)state;
    m.rows = m.cols = 4096;
    quant_reads_of(reads, &m, 1 << 21, 1 << 21); /* 4 MiB of BF16 */
    expect(&reads[QUANT_PART_CODES], 1 << 20, 1 << 20, 0, 1);
    expect(&reads[QUANT_PART_SCALES], 128 << 10, 128 << 10, 0, 1);
    expect(&reads[QUANT_PART_ZEROS], 0, 0, 0, 0);
    quant_reads_of(reads, &m, 0, 0);
    expect(&reads[QUANT_PART_CODES], 0, 0, 0, 0);

    /* 16 of 64 outputs, and all of them. */
    quant_reads_of(reads, &gptq, 16 * 96, 16 * 96);
    expect(&reads[QUANT_PART_CODES], 16 * 4, 16 * 4, 64 * 4, 12);
    expect(&reads[QUANT_PART_SCALES], 16 * 2, 16 * 2, 64 * 2, 3);
    expect(&reads[QUANT_PART_ZEROS], 8, 8, 32, 3);
    quant_reads_of(reads, &gptq, 0, 64 * 96);
    expect(&reads[QUANT_PART_CODES], 0, 12 * 64 * 4, 0, 1);
    expect(&reads[QUANT_PART_SCALES], 0, 3 * 64 * 2, 0, 1);
}

/* A range in one band is one piece of it; one that passes its end needs all. */
static void test_quant_reads_of__bands(void **state)
{
    struct quant_reads reads[QUANT_PART_COUNT];

    (void)state;
    assert_true(quant_is_strided(&hqq));
    assert_int_equal(quant_span(&hqq), 12 * 32);
    quant_reads_of(reads, &hqq, 13 * 32 + 3, 2 * 32);
    expect(&reads[QUANT_PART_CODES], 32 + 3, 64, 0, 1);
    expect(&reads[QUANT_PART_ZEROS], 13 * 4, 2 * 4 + 2, 0, 1);
    quant_reads_of(reads, &hqq, 11 * 32, 2 * 32);
    expect(&reads[QUANT_PART_CODES], 0, 12 * 32, 0, 1);
    expect(&reads[QUANT_PART_SCALES], 11 * 4, 2 * 4, 0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant_check__sizes),
        cmocka_unit_test(test_quant_check__sizes_that_overflow),
        cmocka_unit_test(test_quant_check__schemes),
        cmocka_unit_test(test_quant_check__numbers),
        cmocka_unit_test(test_quant_check_whole),
        cmocka_unit_test(test_quant_reads_of),
        cmocka_unit_test(test_quant_reads_of__bands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

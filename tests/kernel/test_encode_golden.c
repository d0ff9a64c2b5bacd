/*
 * Numbers as tests/golden/make_encode.py wrote them, encoded by every table: the codes are those of
 * the packages, or of the rules, that made them.
 *
 * usage: test_encode_golden [DIRECTORY]
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/cpu.h"
#include "kernel/golden_files.h"

#include <inttypes.h>

enum operation { BNB4, ROUND_TRIP, NESTED, SCALED, MXFP4, TIES };

struct golden {
    uint64_t operation;
    uint64_t codes;
    uint64_t dtype;
    uint64_t block;
    uint64_t src_count;
    uint64_t float_count;
    uint64_t byte_count;
    float *src;
    float *floats;
    uint8_t *bytes;
    const char *path;
};

static void *read_some(FILE *file, size_t bytes, const char *path)
{
    void *memory = malloc(bytes + 1);

    CHECK(memory, "no memory");
    golden_bytes(file, memory, bytes, path);
    return memory;
}

static void golden_read(struct golden *golden, const char *path)
{
    FILE *file = golden_open(path, "LFENCOD1");
    uint64_t numbers[7];

    golden_bytes(file, numbers, sizeof(numbers), path);
    *golden = (struct golden){ numbers[0], numbers[1], numbers[2], numbers[3],
                               numbers[4], numbers[5], numbers[6], .path = path };
    golden->src = read_some(file, golden->src_count * sizeof(float), path);
    golden->floats = read_some(file, golden->float_count * sizeof(float), path);
    golden->bytes = read_some(file, golden->byte_count, path);
    golden_close(file, path);
}

static void same_floats(const struct golden *golden, const char *table, const float *actual,
                        const float *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        CHECK(f32_bits(actual[i]) == f32_bits(expected[i]),
              "'%s', %s: number %zu is %08" PRIx32 ", not %08" PRIx32, golden->path, table, i,
              f32_bits(actual[i]), f32_bits(expected[i]));
}

static void same_bytes(const struct golden *golden, const char *table, const uint8_t *actual)
{
    for (size_t i = 0; i < golden->byte_count; i++)
        CHECK(actual[i] == golden->bytes[i], "'%s', %s: byte %zu is %02x, not %02x", golden->path,
              table, i, actual[i], golden->bytes[i]);
}

static void check_nested(const struct golden *golden, float *floats, uint8_t *bytes)
{
    const float *map = golden->floats;
    const size_t first = 512; /* a part of its own, if there is more */
    size_t count = golden->src_count;

    floats[0] = map[256];
    if (golden->operation == NESTED)
        floats[0] = encode_nested_offset(golden->src, count);
    encode_nested(bytes, floats + 1, golden->src, count < first ? count : first, floats[0], map);
    if (count > first)
        encode_nested(bytes + first, floats + 1 + first / ENCODE_NESTED_BLOCK, golden->src + first,
                      count - first, floats[0], map);
    same_floats(golden, "nested", floats, map + 256, golden->float_count - 256);
    same_bytes(golden, "nested", bytes);
}

static void check_table(const struct golden *golden, const struct encode_ops *ops, float *floats,
                        uint8_t *bytes)
{
    const enum quant_codes codes = (enum quant_codes)golden->codes;
    size_t count = golden->src_count;
    size_t block = golden->block;
    size_t bad;

    if (golden->operation == BNB4)
        bad = ops->bnb4(bytes, floats, codes, golden->src, count, block);
    else if (golden->operation == ROUND_TRIP)
        bad = ops->bnb4_round_trip(floats, codes, (enum dtype)golden->dtype, golden->src, count,
                                   block);
    else
        bad = ops->scaled(bytes, codes, golden->src, count, golden->floats, block);
    CHECK(bad == FOLD_FINITE, "'%s', %s: all are finite", golden->path, ops->name);
    if (golden->operation != SCALED)
        same_floats(golden, ops->name, floats, golden->floats, golden->float_count);
    same_bytes(golden, ops->name, bytes);
}

static void check_file(const char *path)
{
    struct golden golden;
    float *floats;
    uint8_t *bytes;

    golden_read(&golden, path);
    floats = calloc(golden.float_count + 1, sizeof(float));
    bytes = calloc(golden.byte_count + 1, 1);
    CHECK(floats && bytes, "no memory");
    if (golden.operation == NESTED || golden.operation == TIES) {
        check_nested(&golden, floats, bytes);
    } else if (golden.operation == MXFP4) {
        for (size_t i = 0; i < golden.src_count; i++)
            bytes[i] = encode_mxfp4_scale(golden.src[i]);
        same_bytes(&golden, "scale", bytes);
    } else {
        for (const struct encode_ops *const *ops = cpu_encode_available(); *ops; ops++)
            check_table(&golden, *ops, floats, bytes);
    }
    free(floats);
    free(bytes);
    free(golden.src);
    free(golden.floats);
    free(golden.bytes);
}

/* The closed form against the table of torch, which the nested case holds. */
static void check_map(const char *directory)
{
    struct golden golden;
    char path[1024];
    float map[256];

    snprintf(path, sizeof(path), "%s/nested", directory);
    golden_read(&golden, path);
    encode_dynamic_map(map);
    same_floats(&golden, "map", map, golden.floats, 256);
    free(golden.src);
    free(golden.floats);
    free(golden.bytes);
}

int main(int argc, char **argv)
{
    const char *directory = argc > 1 ? argv[1] : SOURCE_DIR "/tests/golden/encode";

    check_map(directory);
    golden_each(directory, 37, check_file);
    return 0;
}

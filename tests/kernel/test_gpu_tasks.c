/*
 * Tasks that do what no operation of a table does: many rows at once, strides, grids of scales; and
 * conversions of every number of 16 bits.  The other test_gpu_* compare the operations.
 *
 * usage: test_gpu_tasks [FIRST_SEED [COUNT]]
 *        test_gpu_tasks all        conversions of all fp32 numbers
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/encode.h"
#include "compute/fold.h"
#include "kernel/gpu_run.h"
#include "kernel/kernel_check.h"

#include <inttypes.h>
#include <math.h>

#define SEEDS 150
#define POISON 0xa5

static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };

static float *floats_of(const struct guarded *memory)
{
    return (float *)(void *)memory->bytes;
}

/* Random floats between guard pages, at an address that is a multiple of 4. */
static struct guarded random_floats(uint64_t *rng, size_t count, uint64_t rarity)
{
    struct guarded memory = guarded_alloc(count * sizeof(float), random_one_in(rng, 2),
                                          4 * random_in(rng, 0, 3), POISON);

    fill_floats(rng, floats_of(&memory), count, rarity);
    return memory;
}

static enum device_bad class_of(float value)
{
    if (value != value)
        return DEVICE_BAD_NAN;
    return f32_bits(value) >> 31 ? DEVICE_BAD_MINUS_INFINITY : DEVICE_BAD_INFINITY;
}

/* ------------------------------------------------------------------------------------- norms */

static void check_scale(uint64_t *rng, uint64_t seed)
{
    const bool by_rows = random_one_in(rng, 2);
    const size_t rows = random_in(rng, 0, 30);
    const size_t cols = random_in(rng, 1, random_one_in(rng, 3) ? 300 : 9);
    const size_t factor_count = by_rows ? rows : cols;
    struct guarded x = random_floats(rng, rows * cols, 30);
    struct guarded factors = random_floats(rng, factor_count, 30);
    float *wanted = malloc(rows * cols * sizeof(float) + 1);
    struct gpu_call call = { .task = { .op = by_rows ? DEVICE_SCALE_ROWS : DEVICE_SCALE_COLS,
                                       .scale = { .rows = rows, .cols = cols } } };

    CHECK(wanted, "no memory");
    memcpy(wanted, x.bytes, x.count);
    for (size_t r = 0; r < rows; r++) {
        if (by_rows)
            fold_scalar.scale(wanted + r * cols, floats_of(&factors)[r], cols);
        else
            fold_scalar.scale_each(wanted + r * cols, floats_of(&factors), cols);
    }
    gpu_call_both(&call, &call.task.scale.x, x.bytes, x.count);
    gpu_call_in(&call, &call.task.scale.factors, factors.bytes, factors.count);
    gpu_call_run(&call);
    CHECK(memcmp(x.bytes, wanted, x.count) == 0, "seed %" PRIu64 ": scaling of %zu x %zu", seed,
          rows, cols);
    guarded_free(&x);
    guarded_free(&factors);
    free(wanted);
}

static void check_dora(uint64_t *rng, uint64_t seed)
{
    const uint64_t rarity = random_one_in(rng, 2) ? 0 : 300;
    const size_t rows = random_in(rng, 0, 20);
    const size_t cols = random_in(rng, 1, random_one_in(rng, 3) ? 900 : 70);
    const bool same = random_one_in(rng, 2);
    struct guarded w = random_floats(rng, rows * cols, rarity);
    struct guarded alone = random_floats(rng, rows * cols, rarity);
    struct guarded magnitudes = random_floats(rng, rows, rarity);
    float *wanted = malloc(w.count + 1);
    struct gpu_call call = { .task = { .op = DEVICE_DORA_ROWS,
                                       .dora_rows = { .rows = rows, .cols = cols } } };

    CHECK(wanted, "no memory");
    memcpy(wanted, w.bytes, w.count);
    for (size_t r = 0; r < rows; r++) {
        double lanes[FOLD_LANES] = { 0 };

        fold_scalar.add_squares(lanes, floats_of(same ? &w : &alone) + r * cols, cols);
        fold_scalar.scale(wanted + r * cols,
                          fold_dora_factor(floats_of(&magnitudes)[r], fold_norm(lanes)), cols);
    }
    gpu_call_both(&call, &call.task.dora_rows.w, w.bytes, w.count);
    if (same)
        gpu_call_same(&call, &call.task.dora_rows.alone, w.bytes);
    else
        gpu_call_in(&call, &call.task.dora_rows.alone, alone.bytes, alone.count);
    gpu_call_in(&call, &call.task.dora_rows.magnitudes, magnitudes.bytes, magnitudes.count);
    gpu_call_run(&call);
    CHECK(memcmp(w.bytes, wanted, w.count) == 0, "seed %" PRIu64 ": DoRA of %zu x %zu", seed, rows,
          cols);
    guarded_free(&w);
    guarded_free(&alone);
    guarded_free(&magnitudes);
    free(wanted);
}

/* -------------------------------------------------------------------------------- conversions */

struct convert_case {
    struct device_convert task;
    struct guarded src;
    struct guarded dst;
    unsigned char *wanted;
    size_t bad; /* index that the definition finds */
    float bad_value;
};

/* What the definition makes of each row, in a copy of dst. */
static void want_rows(struct convert_case *c)
{
    const struct device_convert *task = &c->task;

    c->bad = FOLD_FINITE;
    c->wanted = malloc(c->dst.count + 1);
    CHECK(c->wanted, "no memory");
    memcpy(c->wanted, c->dst.bytes, c->dst.count);
    for (uint64_t r = 0; r < task->rows; r++) {
        unsigned char *dst = c->wanted + r * task->dst_stride * dtype_bytes(task->dst_dtype);
        const struct fold_segment row = {
            .src = c->src.bytes + r * task->src_stride * dtype_bytes(task->src_dtype),
            .dst = dst,
            .src_dtype = task->src_dtype,
            .dst_dtype = task->dst_dtype,
            .cols = task->cols,
            .count = task->cols,
        };
        size_t bad = fold_scalar.fold(&row);

        if (bad != FOLD_FINITE && c->bad == FOLD_FINITE) {
            c->bad = r * task->dst_stride + bad;
            fold_scalar.decode(&c->bad_value, dst + bad * dtype_bytes(task->dst_dtype),
                               task->dst_dtype, 1);
        }
    }
}

static void run_convert(struct convert_case *c, const char *what, uint64_t seed)
{
    struct gpu_call call = { .task = { .op = DEVICE_CONVERT, .convert = c->task } };
    uint64_t bad = c->bad == FOLD_FINITE ? DEVICE_FINITE : c->bad * 4 + class_of(c->bad_value);

    gpu_call_both(&call, &call.task.convert.dst, c->dst.bytes, c->dst.count);
    gpu_call_in(&call, &call.task.convert.src, c->src.bytes, c->src.count);
    gpu_call_run(&call);
    CHECK(memcmp(c->dst.bytes, c->wanted, c->dst.count) == 0, "%s, %" PRIu64 ": %s to %s", what,
          seed, dtype_name(c->task.src_dtype), dtype_name(c->task.dst_dtype));
    CHECK(call.bad == bad, "%s, %" PRIu64 ": found %" PRIu64 ", not %" PRIu64, what, seed, call.bad,
          bad);
    CHECK(guarded_intact(&c->dst, POISON), "%s, %" PRIu64 ": wrote outside", what, seed);
    guarded_free(&c->src);
    guarded_free(&c->dst);
    free(c->wanted);
}

/* What lies between the rows must stay. */
static void check_convert(uint64_t *rng, uint64_t seed)
{
    struct convert_case c = { .task = { .src_dtype = dtypes[random_in(rng, 0, 2)],
                                        .dst_dtype = dtypes[random_in(rng, 0, 2)],
                                        .rows = random_in(rng, 0, 9),
                                        .cols = random_in(rng, 1, 100) } };
    const size_t src_bytes = dtype_bytes(c.task.src_dtype);
    const size_t dst_bytes = dtype_bytes(c.task.dst_dtype);
    const bool dense = random_one_in(rng, 3);

    c.task.src_stride = c.task.cols + (dense ? 0 : random_in(rng, 0, 20));
    c.task.dst_stride = c.task.cols + (dense ? 0 : random_in(rng, 0, 20));
    c.src = guarded_alloc(c.task.rows * c.task.src_stride * src_bytes, random_one_in(rng, 2),
                          random_in(rng, 0, 5), POISON);
    c.dst = guarded_alloc(c.task.rows * c.task.dst_stride * dst_bytes, random_one_in(rng, 2),
                          random_in(rng, 0, 5), POISON);
    for (size_t i = 0; i < c.src.count / src_bytes; i++) {
        float value = random_value(rng, 300);

        fold_scalar.encode(c.src.bytes + i * src_bytes, c.task.src_dtype, &value, 1);
    }
    want_rows(&c);
    run_convert(&c, "seed", seed);
}

/* The fp32 patterns `first`, first + step, ..., to a dtype. */
static void check_patterns(enum dtype dst_dtype, uint32_t first, uint32_t step, size_t count)
{
    struct convert_case c = { .task = { .src_dtype = DTYPE_F32,
                                        .dst_dtype = dst_dtype,
                                        .rows = 1,
                                        .cols = count,
                                        .src_stride = count,
                                        .dst_stride = count } };

    c.src = guarded_alloc(count * sizeof(float), true, 0, POISON);
    c.dst = guarded_alloc(count * dtype_bytes(dst_dtype), true, 0, POISON);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = first + (uint32_t)i * step;

        memcpy(c.src.bytes + 4 * i, &bits, 4);
    }
    want_rows(&c);
    run_convert(&c, "patterns from", first);
}

/* All halves, and fp32 around every number of 16 bits and half way to the next. */
static void check_halves(void)
{
    static const uint32_t ends[] = { 0x0000, 0x0001, 0x0fff, 0x1000, 0x1001, 0x2fff, 0x3000,
                                     0x7fff, 0x8000, 0x8001, 0xefff, 0xf000, 0xffff };

    for (unsigned d = 0; d < COUNT_OF(dtypes); d++) {
        for (unsigned e = 0; e < COUNT_OF(ends); e++)
            check_patterns(dtypes[d], ends[e], 0x10000, 0x10000);
        for (unsigned s = 0; s < 2; s++) {
            struct convert_case c = { .task = { .src_dtype = dtypes[s],
                                                .dst_dtype = dtypes[d],
                                                .rows = 1,
                                                .cols = 0x10000,
                                                .src_stride = 0x10000,
                                                .dst_stride = 0x10000 } };

            c.src = guarded_alloc(2 * 0x10000, true, 0, POISON);
            c.dst = guarded_alloc(0x10000 * dtype_bytes(dtypes[d]), true, 0, POISON);
            for (uint32_t i = 0; i < 0x10000; i++) {
                uint16_t half = (uint16_t)i;

                memcpy(c.src.bytes + 2 * (size_t)i, &half, 2);
            }
            want_rows(&c);
            run_convert(&c, "halves", s);
        }
    }
}

static void check_all_patterns(void)
{
    for (unsigned d = 0; d < COUNT_OF(dtypes); d++) {
        for (uint32_t part = 0; part < 256; part++)
            check_patterns(dtypes[d], part << 24, 1, 1 << 24);
    }
}

/* --------------------------------------------------------------------------------------- codes */

/* Row part by row part, each within a block of scales. */
static uint64_t want_scaled(const struct device_scaled *task, uint8_t *out, const float *src,
                            const float *scales)
{
    const uint64_t down = (task->rows + task->block_rows - 1) / task->block_rows;
    const uint64_t across = (task->cols + task->block_cols - 1) / task->block_cols;
    const unsigned per_byte = task->codes == QUANT_E2M1 ? 2 : 1;
    uint64_t found = DEVICE_FINITE;

    for (uint64_t i = 0; i < task->count;) {
        uint64_t row = (task->first + i) / task->cols;
        uint64_t col = (task->first + i) % task->cols;
        uint64_t block = col / task->block_cols;
        uint64_t left = task->count - i;
        const float *scale = scales +
                             ((row / task->rows * down + row % task->rows / task->block_rows) *
                                  across +
                              block - task->scale_first);
        size_t bad = FOLD_FINITE;

        if (left > task->cols - col)
            left = task->cols - col;
        if (left > (block + 1) * task->block_cols - col)
            left = (block + 1) * task->block_cols - col;
        if (task->integers)
            encode_int8(out + i / per_byte, src + i, left, scale, left);
        else
            bad = encode_scalar.scaled(out + i / per_byte, task->codes, src + i, left, scale, left);
        if (bad != FOLD_FINITE && found == DEVICE_FINITE)
            found = (i + bad) * 4 + class_of(src[i + bad]);
        i += left;
    }
    return found;
}

static void random_scaled(struct device_scaled *task, uint64_t *rng)
{
    static const enum quant_codes codes[] = { QUANT_E4M3, QUANT_E2M1, QUANT_SIGNED };
    const unsigned even = random_one_in(rng, 2) ? 2 : 1;
    uint64_t matrices = random_in(rng, 1, 3);

    *task = (struct device_scaled){ .codes = codes[random_in(rng, 0, even == 2 ? 2 : 0)] };
    if (even == 1 && random_one_in(rng, 2))
        task->codes = QUANT_SIGNED;
    task->integers = task->codes == QUANT_SIGNED && random_one_in(rng, 2);
    task->rows = random_in(rng, 1, 12);
    task->cols = random_in(rng, 1, random_one_in(rng, 4) ? 400 : 40) * even;
    task->block_rows = random_in(rng, 1, random_one_in(rng, 2) ? 1 : 5);
    task->block_cols = random_in(rng, 1, random_one_in(rng, 3) ? task->cols : 40);
    if (task->codes == QUANT_E2M1) /* pairs do not cross blocks */
        task->block_cols += task->block_cols % 2;
    task->first = random_in(rng, 0, matrices * task->rows * task->cols - 1);
    task->first -= task->codes == QUANT_E2M1 ? task->first % 2 : 0;
    task->count = random_in(rng, 0, matrices * task->rows * task->cols - task->first);
}

static void check_scaled(uint64_t *rng, uint64_t seed)
{
    struct device_scaled task;
    struct guarded src, scales, out;
    uint64_t down, across, scale_count, wanted_bad;
    uint8_t *wanted;
    struct gpu_call call = { .task = { .op = DEVICE_SCALED } };

    random_scaled(&task, rng);
    down = (task.rows + task.block_rows - 1) / task.block_rows;
    across = (task.cols + task.block_cols - 1) / task.block_cols;
    scale_count = down * across * 3;
    src = random_floats(rng, task.count, 400);
    scales = random_floats(rng, scale_count, 0);
    for (uint64_t i = 0; i < scale_count; i++) {
        float *scale = &floats_of(&scales)[i];

        *scale = random_one_in(rng, 20) ? 0.0f : fabsf(*scale);
    }
    task.scale_first = random_in(rng, 0, task.first / task.cols % task.rows == 0 ? 0 : across);
    if (task.scale_first > (task.first / task.cols / task.rows * down +
                            task.first / task.cols % task.rows / task.block_rows) *
                               across)
        task.scale_first = 0;
    out = guarded_alloc(task.codes == QUANT_E2M1 ? (task.count + 1) / 2 : task.count,
                        random_one_in(rng, 2), random_in(rng, 0, 3), POISON);
    wanted = malloc(out.count + 1);
    CHECK(wanted, "no memory");
    wanted_bad = want_scaled(&task, wanted, floats_of(&src), floats_of(&scales));
    call.task.scaled = task;
    gpu_call_both(&call, &call.task.scaled.out, out.bytes, out.count);
    gpu_call_in(&call, &call.task.scaled.src, src.bytes, src.count);
    gpu_call_in(&call, &call.task.scaled.scales, scales.bytes, scales.count);
    gpu_call_run(&call);
    for (size_t i = 0; i < out.count; i++)
        CHECK(out.bytes[i] == wanted[i], "seed %" PRIu64 ": byte %zu of %zu is %02x, not %02x",
              seed, i, out.count, out.bytes[i], wanted[i]);
    CHECK(call.bad == wanted_bad, "seed %" PRIu64 ": found %" PRIu64 ", not %" PRIu64, seed,
          call.bad, wanted_bad);
    CHECK(guarded_intact(&out, POISON), "seed %" PRIu64 ": wrote outside", seed);
    guarded_free(&src);
    guarded_free(&scales);
    guarded_free(&out);
    free(wanted);
}

/* --------------------------------------------------------------------------------------- folds */

/* A part of the ranks of rows that are as long as they like. */
static void check_panel_sum(uint64_t *rng, uint64_t seed)
{
    const uint32_t rank = (uint32_t)random_in(rng, 1, FOLD_PANEL);
    const size_t rows = random_in(rng, 1, 100);
    const size_t cols = random_in(rng, 1, 200);
    const size_t stride = cols + random_in(rng, 0, 5);
    const size_t b_stride = rank + random_in(rng, 0, 9);
    const size_t b_count = (rows - 1) * b_stride + rank;
    struct guarded sum = random_floats(rng, (rows - 1) * stride + cols, 0);
    struct guarded a = guarded_alloc(fold_packed_floats(rank, cols) * sizeof(float), true, 0, 0);
    struct guarded b = random_floats(rng, b_count, 0);
    struct gpu_call call = { .task = { .op = DEVICE_PANEL_SUM,
                                       .panel_sum = { .stride = stride,
                                                      .rows = rows,
                                                      .cols = cols,
                                                      .b_stride = b_stride,
                                                      .rank = rank,
                                                      .first = random_one_in(rng, 2) } } };
    float *wanted = malloc(sum.count);
    float *row = malloc(cols * sizeof(float));

    CHECK(wanted && row, "no memory");
    for (uint32_t k = 0; k < rank; k++) {
        fill_floats(rng, row, cols, 0);
        fold_pack_row(floats_of(&a), rank, k, row, cols);
    }
    memcpy(wanted, sum.bytes, sum.count);
    fold_scalar.panel_sum(wanted, stride, rows, cols, floats_of(&a), floats_of(&b), b_stride, rank,
                          call.task.panel_sum.first);
    gpu_call_both(&call, &call.task.panel_sum.sum, sum.bytes, sum.count);
    gpu_call_in(&call, &call.task.panel_sum.a, a.bytes, a.count);
    gpu_call_in(&call, &call.task.panel_sum.b, b.bytes, b.count);
    gpu_call_run(&call);
    CHECK(memcmp(sum.bytes, wanted, sum.count) == 0,
          "seed %" PRIu64 ": sums of %zu x %zu, rank %" PRIu32, seed, rows, cols, rank);
    guarded_free(&sum);
    guarded_free(&a);
    guarded_free(&b);
    free(wanted);
    free(row);
}

/* One delta; element `bad` of W is NaN or infinite, NONE_BAD: none. */
#define NONE_BAD SIZE_MAX
static void check_fold_with(size_t bad, uint32_t rank, uint64_t rows, uint64_t cols,
                            uint64_t first_col, enum dtype dtype, enum dtype dst_dtype,
                            size_t slack)
{
    uint64_t rng = rank * 1000003 + cols;
    const size_t count = rows * cols - first_col;
    const size_t src_bytes = count * dtype_bytes(dtype);
    const size_t bytes = count * dtype_bytes(dst_dtype);
    struct guarded w = guarded_alloc(src_bytes, false, slack, POISON);
    struct guarded dst = guarded_alloc(bytes, false, slack, POISON);
    float *row = malloc(cols * sizeof(float));
    float *a = aligned_alloc(64, fold_packed_floats(rank, cols) * sizeof(float));
    float *b = malloc(rows * rank * sizeof(float));
    unsigned char *wanted = malloc(bytes);
    struct gpu_call call = { .task = { .op = DEVICE_FOLD } };
    struct device_fold *fold = &call.task.fold;

    CHECK(row && a && b && wanted, "no memory");
    for (uint32_t k = 0; k < rank; k++) {
        fill_floats(&rng, row, cols, 0);
        fold_pack_row(a, rank, k, row, cols);
    }
    fill_floats(&rng, b, rows * rank, 0);
    for (size_t i = 0; i < count; i++) {
        float value = i != bad ? random_unit(&rng) : i % 2 ? NAN : -INFINITY;

        fold_scalar.encode(w.bytes + i * dtype_bytes(dtype), dtype, &value, 1);
    }
    fold->deltas[0] = (struct fold_delta){ .a = a, .b = b, .rank = rank, .scale = 0.75f };
    fold->segment = (struct fold_segment){ .src = w.bytes,
                                           .dst = wanted,
                                           .src_dtype = dtype,
                                           .dst_dtype = dst_dtype,
                                           .cols = cols,
                                           .first_col = first_col,
                                           .count = count,
                                           .deltas = fold->deltas,
                                           .delta_count = 1 };
    CHECK(fold_scalar.fold(&fold->segment) == (bad == NONE_BAD ? FOLD_FINITE : bad), "the test");
    gpu_call_both(&call, &fold->segment.dst, dst.bytes, bytes);
    gpu_call_in(&call, &fold->segment.src, w.bytes, src_bytes);
    gpu_call_in(&call, &fold->deltas[0].a, a, fold_packed_floats(rank, cols) * sizeof(float));
    gpu_call_in(&call, &fold->deltas[0].b, b, rows * rank * sizeof(float));
    gpu_call_run(&call);
    CHECK(memcmp(dst.bytes, wanted, bytes) == 0 && guarded_intact(&dst, POISON) &&
              (bad == NONE_BAD ? call.bad == DEVICE_FINITE : call.bad / 4 == bad),
          "fold of %" PRIu64 " x %" PRIu64 " from %" PRIu64 " on, rank %" PRIu32
          ", slack %zu, bad %zu",
          rows, cols, first_col, rank, slack, bad);
    guarded_free(&w);
    guarded_free(&dst);
    free(row);
    free(a);
    free(b);
    free(wanted);
}

static void check_fold(uint32_t rank, uint64_t rows, uint64_t cols, uint64_t first_col,
                       enum dtype dtype, enum dtype dst_dtype, size_t slack)
{
    check_fold_with(NONE_BAD, rank, rows, cols, first_col, dtype, dst_dtype, slack);
}

static void check_folds(void)
{
    static const uint32_t ranks[] = { 1, 31, 32, 33, 64 };

    for (unsigned r = 0; r < COUNT_OF(ranks); r++) { /* blocks of several tiles */
        check_fold(ranks[r], 700, 320, 0, DTYPE_BF16, DTYPE_BF16, 0);
        check_fold(ranks[r], 650, 300, 77, DTYPE_F32, DTYPE_F32, 0);
    }
    for (size_t slack = 0; slack < 16; slack++) {
        check_fold(8, 20, 64, 0, DTYPE_BF16, DTYPE_BF16, slack);
        check_fold(70, 20, 64, 0, DTYPE_BF16, DTYPE_BF16, slack); /* two panels: the other kernel */
        check_fold(8, 20, 60, 3, DTYPE_F32, DTYPE_F32, slack);
    }
    for (size_t row = 0; row < 16;
         row++) { /* of the rows of a thread each has a number that is not */
        for (unsigned d = 0; d < COUNT_OF(dtypes); d++) {
            check_fold_with(row * 65, 8, 16, 64, 0, dtypes[d], dtypes[d], 0);
            check_fold_with(row * 65, 70, 16, 64, 0, dtypes[d], dtypes[d], 0);
        }
    }
    /* Rows of one dtype are aligned, those of the other are not. */
    for (uint64_t cols = 48; cols < 64; cols++) {
        check_fold(8, 20, cols, 0, DTYPE_F32, DTYPE_BF16, 0);
        check_fold(8, 20, cols, 0, DTYPE_F16, DTYPE_F32, 0);
    }
}

/* A task of nothing does nothing. */
static void check_nothing(void)
{
    for (int op = 0; op < DEVICE_OP_COUNT; op++) {
        struct gpu_call call = { .task = { .op = (enum device_op)op } };

        if (op == DEVICE_FOLD)
            call.task.fold.segment.cols = 5;
        if (op == DEVICE_DECODE)
            call.task.decode.matrix = (struct quant_matrix){ .matrices = 1,
                                                             .rows = 4,
                                                             .cols = 4,
                                                             .codes = QUANT_E4M3,
                                                             .bits = 8,
                                                             .scale_dtype = DTYPE_F32,
                                                             .block_rows = 4,
                                                             .block_cols = 4,
                                                             .result_dtype = DTYPE_F32 };
        if (op == DEVICE_BNB4 || op == DEVICE_ROUND_TRIP)
            call.task.blocks.block = 64;
        gpu_call_run(&call);
        CHECK(call.bad == DEVICE_FINITE, "operation %d finds something in nothing", op);
    }
}

int main(int argc, char **argv)
{
    const bool all = argc > 1 && strcmp(argv[1], "all") == 0;
    uint64_t first = argc > 1 && !all ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : SEEDS;
    struct fold_environment environment;

    fold_environment_enter(&environment);
    if (all) {
        check_all_patterns();
        return 0;
    }
    check_nothing();
    check_halves();
    check_folds();
    printf("seeds %" PRIu64 " to %" PRIu64 "\n", first, first + count - 1);
    for (uint64_t seed = first; seed < first + count; seed++) {
        uint64_t rng = seed * UINT64_C(0x9e3779b97f4a7c15);

        check_scale(&rng, seed);
        check_dora(&rng, seed);
        check_convert(&rng, seed);
        check_scaled(&rng, seed);
        check_panel_sum(&rng, seed);
    }
    fold_environment_leave(&environment);
    return 0;
}

/*
 * body_fold.h - W + scale * B A for a tile of W, and sums of B A
 *
 * A block of threads takes a tile of FOLD_TILE_COLS columns and 8 rows for each row of threads.  A
 * thread has 8 x 8 (or 4 x 8) sums in registers.  FOLD_STEP ranks of A and B at a time lie in
 * memory that the threads share, so that for a rank a thread reads 16 floats there and does 64 fma:
 * a tile of 64 x 128 reads each float of A 64 times less often than it is used, one of B 128 times.
 *
 * What it costs for an element of BF16, on an H100 with 33.5e12 instructions and 3.35e12 bytes a
 * second: 4 bytes, r fma and what is around them, 0.1 r + 9 instructions (counted in the code for
 * compute capability 9.0).  Bytes and instructions balance at r = 28.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef GPU_BODY_FOLD_H
#define GPU_BODY_FOLD_H

#include "gpu/body_element.h"

#define FOLD_TILE_COLS 128u
#define FOLD_STEP 32u /* ranks in shared memory; divides FOLD_PANEL */
#define FOLD_THREAD_COLS (FOLD_TILE_COLS / GPU_EIGHT)     /* threads along a row of the tile */
#define FOLD_THREAD_ROWS (GPU_THREADS / FOLD_THREAD_COLS) /* and down */
#define FOLD_ROWS_ONE 8u  /* rows of a thread, for one delta of one panel */
#define FOLD_ROWS_MANY 4u /* else: it has sums of panels and W in registers as well */
#define FOLD_FLIGHT 4u    /* rows on their way to a thread, of F32; of 16 bits all */
#define FOLD_TILE_ROWS_MAX (FOLD_THREAD_ROWS * FOLD_ROWS_ONE)

/*
 * The columns of a thread lie in two vectors FOLD_TILE_COLS / 2 apart, so that neighbouring threads
 * read neighbouring vectors.  Row `row` of B, rank k, is b[k][row ^ fold_turn(k)].
 */
struct fold_shared {
    float a[FOLD_STEP][FOLD_TILE_COLS];
    float b[FOLD_STEP][FOLD_TILE_ROWS_MAX];
} __attribute__((aligned(16))); /* it is read and written in vectors */

struct fold_mine {
    float acc[FOLD_ROWS_ONE][GPU_EIGHT];
    float sum[FOLD_ROWS_MANY][GPU_EIGHT];
    float w[FOLD_ROWS_MANY][GPU_EIGHT];
};

/* One factor pair, of which ranks [k, k + ranks) are worked on. */
struct fold_step {
    const float *a; /* packed */
    const float *b;
    uint64_t b_stride;
    uint32_t rank; /* of the packed A */
    uint32_t k;
    unsigned ranks; /* 1..FOLD_STEP */
};

/* What a block works on: where the tile begins in the target, and where that ends. */
struct fold_tile {
    uint64_t row;
    uint64_t col;
    uint64_t rows;
    uint64_t cols;
};

/* How the work is cut. */
struct fold_grid {
    uint64_t tiles_across;
    uint64_t tiles_down;
    unsigned tiles; /* one below the other, of a block: A is read once for them */
};

COMPUTE_SHARED unsigned fold_place_of_col(unsigned col)
{
    return col % GPU_EIGHT / 4 * (FOLD_TILE_COLS / 2) + col / GPU_EIGHT * 4;
}

COMPUTE_SHARED void fold_load_a(struct fold_shared *shared, const struct fold_step *step,
                                const struct fold_tile *tile, unsigned thread)
{
    for (unsigned v = thread; v < step->ranks * (FOLD_TILE_COLS / 4); v += GPU_THREADS) {
        unsigned k = v / (FOLD_TILE_COLS / 4);
        unsigned col = v % (FOLD_TILE_COLS / 4) * 4;
        uint64_t group = (tile->col + col) / FOLD_GROUP;
        struct gpu_floats floats = { { 0.0f, 0.0f, 0.0f, 0.0f } };

        if (group * FOLD_GROUP < tile->cols)
            floats = gpu_load_floats(step->a + (group * step->rank + step->k + k) * FOLD_GROUP +
                                     col % FOLD_GROUP);
        gpu_store_floats(&shared->a[k][fold_place_of_col(col)], floats);
    }
}

/*
 * Four ranks of a row of B are read at once, and each goes to a line of its own.  A warp has 8 rows
 * of 16 ranks, a block four times as many rows.  Turned like this, what a warp writes at once lies
 * in 32 different banks, and 4 rows of a rank stay one vector.
 */
#define FOLD_PASS_RANKS 16u
#define FOLD_PASS_ROWS (GPU_THREADS / 4)
COMPUTE_SHARED unsigned fold_turn(unsigned k)
{
    return k / 4 % 4 * 8;
}

/* Where rows begin at multiples of 16 bytes, four ranks are read although the last are not wanted.
 */
COMPUTE_SHARED bool fold_b_is_even(const struct fold_step *step)
{
    return (step->b_stride % 4 | (uintptr_t)(step->b + step->k) % 16) == 0;
}

COMPUTE_SHARED void fold_load_even_b(struct fold_shared *shared, const struct fold_step *step,
                                     const struct fold_tile *tile, unsigned tile_rows,
                                     unsigned thread)
{
    const unsigned row = thread / 32 * 8 + thread % 8;
    const unsigned k = thread / 8 % 4 * 4;
    const unsigned place = row ^ fold_turn(k);
    const float *from = step->b + (tile->row + row) * step->b_stride + step->k + k;
    struct gpu_floats floats[FOLD_TILE_ROWS_MAX / FOLD_PASS_ROWS][FOLD_STEP / FOLD_PASS_RANKS];

    GPU_UNROLL
    for (unsigned r = 0; r < tile_rows / FOLD_PASS_ROWS; r++) {
        GPU_UNROLL
        for (unsigned s = 0; s < FOLD_STEP / FOLD_PASS_RANKS; s++) {
            struct gpu_floats zero = { { 0.0f, 0.0f, 0.0f, 0.0f } };

            floats[r][s] = zero;
            if (tile->row + row + r * FOLD_PASS_ROWS < tile->rows &&
                k + s * FOLD_PASS_RANKS < step->ranks)
                floats[r][s] = gpu_load_floats(from + r * FOLD_PASS_ROWS * step->b_stride +
                                               s * FOLD_PASS_RANKS);
        }
    }
    GPU_UNROLL
    for (unsigned r = 0; r < tile_rows / FOLD_PASS_ROWS; r++) {
        GPU_UNROLL
        for (unsigned s = 0; s < FOLD_STEP / FOLD_PASS_RANKS; s++) {
            GPU_UNROLL
            for (unsigned i = 0; i < 4; i++)
                shared->b[k + s * FOLD_PASS_RANKS + i][place + r * FOLD_PASS_ROWS] = floats[r][s]
                                                                                         .lane[i];
        }
    }
}

COMPUTE_SHARED void fold_load_b(struct fold_shared *shared, const struct fold_step *step,
                                const struct fold_tile *tile, unsigned tile_rows, unsigned thread)
{
    if (fold_b_is_even(step)) {
        fold_load_even_b(shared, step, tile, tile_rows, thread);
        return;
    }
    GPU_UNROLL_NEVER
    for (unsigned v = thread; v < tile_rows * FOLD_STEP; v += GPU_THREADS) {
        unsigned row = v / (GPU_EIGHT * FOLD_STEP) * GPU_EIGHT + v % GPU_EIGHT;
        unsigned k = v / GPU_EIGHT % FOLD_STEP;

        if (k < step->ranks)
            shared->b[k][row ^ fold_turn(k)] =
                tile->row + row < tile->rows
                    ? step->b[(tile->row + row) * step->b_stride + step->k + k]
                    : 0.0f;
    }
}

/* Where a panel begins. */
COMPUTE_SHARED void fold_zero(struct fold_mine *mine, unsigned rows)
{
    GPU_UNROLL
    for (unsigned i = 0; i < rows; i++) {
        GPU_UNROLL
        for (unsigned j = 0; j < GPU_EIGHT; j++)
            mine->acc[i][j] = 0.0f;
    }
}

/* acc = fma(b, a, acc) for rank k; the rows of the thread are `row` and on in the line of B. */
COMPUTE_SHARED void fold_rank(struct fold_mine *mine, const struct fold_shared *shared, unsigned k,
                              unsigned row, unsigned rows, unsigned col)
{
    const struct gpu_floats low = gpu_load_floats(&shared->a[k][col]);
    const struct gpu_floats high = gpu_load_floats(&shared->a[k][FOLD_TILE_COLS / 2 + col]);

    GPU_UNROLL
    for (unsigned i = 0; i < rows; i += 4) {
        const struct gpu_floats b = gpu_load_floats(&shared->b[k][row + i]);

        GPU_UNROLL
        for (unsigned r = 0; r < 4; r++) {
            GPU_UNROLL
            for (unsigned j = 0; j < 4; j++) {
                mine->acc[i + r][j] = f32_fma(b.lane[r], low.lane[j], mine->acc[i + r][j]);
                mine->acc[i + r][j + 4] = f32_fma(b.lane[r], high.lane[j], mine->acc[i + r][j + 4]);
            }
        }
    }
}

/* All ranks of a step, ascending. */
COMPUTE_SHARED void fold_chain(struct fold_mine *mine, const struct fold_shared *shared,
                               const struct fold_step *step, unsigned rows, unsigned thread)
{
    const unsigned col = thread % FOLD_THREAD_COLS * 4;
    const unsigned row = thread / FOLD_THREAD_COLS * rows;
    const unsigned fours = step->ranks / 4 * 4;

    GPU_UNROLL_NEVER
    for (unsigned k = 0; k < fours; k += 4) {
        const unsigned turned = row ^ fold_turn(k);

        GPU_UNROLL
        for (unsigned i = 0; i < 4; i++)
            fold_rank(mine, shared, k + i, turned, rows, col);
    }
    GPU_UNROLL_NEVER
    for (unsigned k = fours; k < step->ranks; k++)
        fold_rank(mine, shared, k, row ^ fold_turn(k), rows, col);
}

/* Eight columns of a row of a target in a segment of it: which of them belong to it. */
struct fold_run {
    uint64_t index; /* in the segment, of column `begin` */
    unsigned begin;
    unsigned end; /* begin == end: none */
};

COMPUTE_SHARED struct fold_run fold_run_of(const struct fold_segment *segment, uint64_t row,
                                           uint64_t col)
{
    const uint64_t first = segment->first_col;
    const uint64_t place = row * segment->cols +
                           col; /* from the start of the segment's first row */
    const uint64_t end = first + segment->count;
    struct fold_run run = { 0, 0, 0 };

    if (col >= segment->cols || place >= end || place + GPU_EIGHT <= first)
        return run;
    run.begin = place < first ? (unsigned)(first - place) : 0;
    run.end = gpu_lesser(segment->cols - col, gpu_lesser(end - place, GPU_EIGHT));
    run.index = place + run.begin - first;
    if (run.begin > run.end)
        run.begin = run.end;
    return run;
}

/* One by one: for what is cut, or lies at odd addresses. */
COMPUTE_SHARED void fold_load_run(float w[GPU_EIGHT], const struct fold_segment *segment,
                                  const struct fold_run *run)
{
    const unsigned bytes = element_bytes(segment->src_dtype);
    const unsigned char *src = (const unsigned char *)segment->src + run->index * bytes;

    GPU_UNROLL
    for (unsigned j = 0; j < GPU_EIGHT; j++) {
        w[j] = 0.0f;
        if (j >= run->begin && j < run->end)
            w[j] = f32_from_bits(element_load(src + (j - run->begin) * bytes, segment->src_dtype));
    }
}

/* The index of a bad result counts those of segments before, of which there are `before`. */
COMPUTE_SHARED void fold_store_run(const float w[GPU_EIGHT], const struct fold_segment *segment,
                                   const struct fold_run *run, uint64_t before, uint64_t *bad)
{
    const enum dtype dtype = segment->dst_dtype;
    unsigned char *dst = (unsigned char *)segment->dst + run->index * element_bytes(dtype);

    GPU_UNROLL_NEVER
    for (unsigned j = run->begin; j < run->end; j++) {
        const uint32_t bits = f32_bits(gpu_pick(w, j));
        const unsigned i = j - run->begin;

        if (!element_store(dst + i * element_bytes(dtype), dtype, bits))
            gpu_report(bad, before + run->index + i, bits);
    }
}

/* Eight columns of some rows, all in the segment and at even addresses. */
struct fold_rows {
    const unsigned char *src;
    unsigned char *dst;
    enum dtype src_dtype;
    enum dtype dst_dtype;
    uint64_t cols;
    uint64_t index;
    unsigned alignment; /* 0: it is not so */
};

COMPUTE_SHARED struct fold_rows fold_rows_of(const struct fold_segment *segment, uint64_t row,
                                             uint64_t col, unsigned rows)
{
    const unsigned src_bytes = element_bytes(segment->src_dtype);
    const unsigned dst_bytes = element_bytes(segment->dst_dtype);
    const uint64_t place = row * segment->cols + col;
    const uint64_t end = place + (rows - 1) * segment->cols + GPU_EIGHT;
    struct fold_rows whole = { NULL, NULL, segment->src_dtype, segment->dst_dtype, segment->cols,
                               0,    0 };
    unsigned low;

    if (col + GPU_EIGHT > segment->cols || place < segment->first_col ||
        end > segment->first_col + segment->count)
        return whole;
    whole.index = place - segment->first_col;
    whole.src = (const unsigned char *)segment->src + whole.index * src_bytes;
    whole.dst = (unsigned char *)segment->dst + whole.index * dst_bytes;
    low = (unsigned)(uintptr_t)whole.src | (unsigned)(uintptr_t)whole.dst;
    if (rows > 1)
        low |= (unsigned)segment->cols * (src_bytes | dst_bytes);
    whole.alignment = gpu_alignment(low);
    return whole;
}

COMPUTE_SHARED void fold_fetch(struct gpu_eight *eight, const struct fold_rows *whole, unsigned row)
{
    gpu_load_eight(eight, whole->src + row * whole->cols * element_bytes(whole->src_dtype),
                   whole->src_dtype, whole->alignment);
}

/* Returns whether all are finite; if not, they are to be mended. */
COMPUTE_SHARED bool fold_store(const float w[GPU_EIGHT], const struct fold_rows *whole,
                               unsigned row)
{
    struct gpu_eight eight;
    bool finite = gpu_round_eight(&eight, w, whole->dst_dtype);

    gpu_store_eight(whole->dst + row * whole->cols * element_bytes(whole->dst_dtype), &eight,
                    whole->dst_dtype, whole->alignment);
    return finite;
}

/* `before`: as fold_store_run(). */
COMPUTE_SHARED void fold_mend(const struct fold_rows *whole, unsigned rows, uint64_t before,
                              uint64_t *bad)
{
    GPU_UNROLL_NEVER
    for (unsigned i = 0; i < rows; i++)
        gpu_mend(whole->dst + i * whole->cols * element_bytes(whole->dst_dtype), whole->dst_dtype,
                 GPU_EIGHT, before + whole->index + i * whole->cols, bad);
}

COMPUTE_SHARED struct fold_step fold_step_of(const struct fold_delta *delta, uint32_t k)
{
    struct fold_step step;

    step.a = delta->a;
    step.b = delta->b;
    step.b_stride = delta->rank;
    step.rank = delta->rank;
    step.k = k;
    step.ranks = gpu_lesser(delta->rank - k, FOLD_STEP);
    return step;
}

COMPUTE_SHARED void fold_add_sums(float w[GPU_EIGHT], float scale, const float sum[GPU_EIGHT])
{
    GPU_UNROLL
    for (unsigned j = 0; j < GPU_EIGHT; j++)
        w[j] = element_add_scaled(w[j], scale, sum[j]);
}

/* W of all rows of a thread plus their scaled sums, `flight` rows on their way from memory at once.
 */
COMPUTE_SHARED void fold_finish_whole(const struct fold_mine *mine, float scale,
                                      const struct fold_rows *whole, unsigned flight, uint64_t *bad)
{
    bool finite = true;
    float w[GPU_EIGHT];

    GPU_UNROLL
    for (unsigned i = 0; i < FOLD_ROWS_ONE; i += flight) {
        struct gpu_eight eights[FOLD_ROWS_ONE];

        GPU_UNROLL
        for (unsigned r = 0; r < flight; r++)
            fold_fetch(&eights[r], whole, i + r);
        GPU_UNROLL
        for (unsigned r = 0; r < flight; r++) {
            gpu_widen_eight(w, &eights[r], whole->src_dtype);
            fold_add_sums(w, scale, mine->acc[i + r]);
            finite &= fold_store(w, whole, i + r);
        }
    }
    if (!finite)
        fold_mend(whole, FOLD_ROWS_ONE, 0, bad);
}

/* The same where all is as it nearly always is, so that nothing has to be decided for each row. */
COMPUTE_SHARED void fold_finish_even(const struct fold_mine *mine, float scale,
                                     const struct fold_rows *whole, enum dtype dtype, uint64_t *bad)
{
    struct fold_rows even = *whole;

    even.src_dtype = even.dst_dtype = dtype;
    even.alignment = 16;
    fold_finish_whole(mine, scale, &even, FOLD_ROWS_ONE, bad);
}

COMPUTE_SHARED void fold_finish_one(const struct fold_mine *mine, const struct device_fold *fold,
                                    const struct fold_tile *tile, uint64_t *bad, unsigned thread)
{
    const struct fold_segment *segment = &fold->segment;
    const float scale = fold->deltas[0].scale;
    const uint64_t col = tile->col + thread % FOLD_THREAD_COLS * GPU_EIGHT;
    const uint64_t row = tile->row + thread / FOLD_THREAD_COLS * FOLD_ROWS_ONE;
    const struct fold_rows whole = fold_rows_of(segment, row, col, FOLD_ROWS_ONE);
    const bool even = whole.alignment == 16 && whole.src_dtype == whole.dst_dtype;
    float w[GPU_EIGHT];

    if (even && whole.src_dtype == DTYPE_BF16) {
        fold_finish_even(mine, scale, &whole, DTYPE_BF16, bad);
        return;
    }
    if (even && whole.src_dtype == DTYPE_F16) {
        fold_finish_even(mine, scale, &whole, DTYPE_F16, bad);
        return;
    }
    if (whole.alignment) {
        fold_finish_whole(mine, scale, &whole, FOLD_FLIGHT, bad);
        return;
    }
    GPU_UNROLL
    for (unsigned i = 0; i < FOLD_ROWS_ONE; i++) {
        const struct fold_run run = fold_run_of(segment, row + i, col);

        fold_load_run(w, segment, &run);
        fold_add_sums(w, scale, mine->acc[i]);
        fold_store_run(w, segment, &run, 0, bad);
    }
}

/* One delta of one panel at most. */
COMPUTE_SHARED void fold_one_block(const struct device_fold *fold, uint64_t *bad,
                                   const struct fold_grid *grid, struct fold_shared *shared,
                                   uint64_t block)
{
    const uint64_t first = block / grid->tiles_across * grid->tiles;
    const unsigned tile_rows = FOLD_THREAD_ROWS * FOLD_ROWS_ONE;
    const uint64_t end = fold->segment.first_col + fold->segment.count;
    const bool keeps_a = fold->deltas[0].rank <= FOLD_STEP;
    struct fold_tile tile;
    GPU_MINE(struct fold_mine, mine, GPU_THREADS);

    tile.col = block % grid->tiles_across * FOLD_TILE_COLS;
    tile.cols = fold->segment.cols;
    tile.rows = gpu_ceil(end, fold->segment.cols);
    for (unsigned t = 0; t < grid->tiles && first + t < grid->tiles_down; t++) {
        tile.row = (first + t) * tile_rows;
        GPU_PHASE(thread, GPU_THREADS)
        fold_zero(&GPU_OF(mine, thread), FOLD_ROWS_ONE);
        for (uint32_t k = 0; k < fold->deltas[0].rank; k += FOLD_STEP) {
            const struct fold_step step = fold_step_of(&fold->deltas[0], k);

            GPU_PHASE(thread, GPU_THREADS)
            {
                if (t == 0 || !keeps_a)
                    fold_load_a(shared, &step, &tile, thread);
                fold_load_b(shared, &step, &tile, tile_rows, thread);
            }
            GPU_PHASE(thread, GPU_THREADS)
            fold_chain(&GPU_OF(mine, thread), shared, &step, FOLD_ROWS_ONE, thread);
        }
        GPU_PHASE(thread, GPU_THREADS)
        fold_finish_one(&GPU_OF(mine, thread), fold, &tile, bad, thread);
    }
}

/* The panel that ended with this step, into the sum of panels. */
COMPUTE_SHARED void fold_end_panel(struct fold_mine *mine, const struct fold_step *step)
{
    const bool first = step->k < FOLD_PANEL;

    if ((step->k + step->ranks) % FOLD_PANEL != 0 && step->k + step->ranks != step->rank)
        return;
    GPU_UNROLL
    for (unsigned i = 0; i < FOLD_ROWS_MANY; i++) {
        GPU_UNROLL
        for (unsigned j = 0; j < GPU_EIGHT; j++)
            mine->sum[i][j] = first ? mine->acc[i][j] : f32_add(mine->sum[i][j], mine->acc[i][j]);
    }
}

/* W into registers, before the first delta. */
COMPUTE_SHARED void fold_begin_many(struct fold_mine *mine, const struct fold_segment *segment,
                                    uint64_t row, uint64_t col)
{
    const struct fold_rows whole = fold_rows_of(segment, row, col, FOLD_ROWS_MANY);
    struct gpu_eight eight;

    GPU_UNROLL
    for (unsigned i = 0; i < FOLD_ROWS_MANY; i++) {
        if (whole.alignment) {
            fold_fetch(&eight, &whole, i);
            gpu_widen_eight(mine->w[i], &eight, segment->src_dtype);
        } else {
            const struct fold_run run = fold_run_of(segment, row + i, col);

            fold_load_run(mine->w[i], segment, &run);
        }
    }
}

COMPUTE_SHARED void fold_end_many(const struct fold_mine *mine, const struct fold_segment *segment,
                                  uint64_t row, uint64_t col, uint64_t *bad)
{
    const struct fold_rows whole = fold_rows_of(segment, row, col, FOLD_ROWS_MANY);
    bool finite = true;

    GPU_UNROLL
    for (unsigned i = 0; i < FOLD_ROWS_MANY; i++) {
        if (whole.alignment) {
            finite &= fold_store(mine->w[i], &whole, i);
        } else {
            const struct fold_run run = fold_run_of(segment, row + i, col);

            fold_store_run(mine->w[i], segment, &run, 0, bad);
        }
    }
    if (!finite)
        fold_mend(&whole, FOLD_ROWS_MANY, 0, bad);
}

COMPUTE_SHARED void fold_end_delta(struct fold_mine *mine, float scale)
{
    GPU_UNROLL
    for (unsigned i = 0; i < FOLD_ROWS_MANY; i++)
        fold_add_sums(mine->w[i], scale, mine->sum[i]);
}

/* Any number of deltas of any rank; a block has one tile. */
COMPUTE_SHARED void fold_many_block(const struct device_fold *fold, uint64_t *bad,
                                    const struct fold_grid *grid, struct fold_shared *shared,
                                    uint64_t block)
{
    const unsigned tile_rows = FOLD_THREAD_ROWS * FOLD_ROWS_MANY;
    const struct fold_segment *segment = &fold->segment;
    struct fold_tile tile;
    GPU_MINE(struct fold_mine, mine, GPU_THREADS);

    tile.row = block / grid->tiles_across * tile_rows;
    tile.col = block % grid->tiles_across * FOLD_TILE_COLS;
    tile.cols = segment->cols;
    tile.rows = gpu_ceil(segment->first_col + segment->count, segment->cols);
    GPU_PHASE(thread, GPU_THREADS)
    fold_begin_many(&GPU_OF(mine, thread), segment,
                    tile.row + thread / FOLD_THREAD_COLS * FOLD_ROWS_MANY,
                    tile.col + thread % FOLD_THREAD_COLS * GPU_EIGHT);
    for (unsigned d = 0; d < segment->delta_count; d++) {
        for (uint32_t k = 0; k < fold->deltas[d].rank; k += FOLD_STEP) {
            const struct fold_step step = fold_step_of(&fold->deltas[d], k);

            GPU_PHASE(thread, GPU_THREADS)
            {
                fold_load_a(shared, &step, &tile, thread);
                fold_load_b(shared, &step, &tile, tile_rows, thread);
            }
            GPU_PHASE(thread, GPU_THREADS)
            {
                if (k % FOLD_PANEL == 0)
                    fold_zero(&GPU_OF(mine, thread), FOLD_ROWS_MANY);
                fold_chain(&GPU_OF(mine, thread), shared, &step, FOLD_ROWS_MANY, thread);
                fold_end_panel(&GPU_OF(mine, thread), &step);
            }
        }
        GPU_PHASE(thread, GPU_THREADS)
        fold_end_delta(&GPU_OF(mine, thread), fold->deltas[d].scale);
    }
    GPU_PHASE(thread, GPU_THREADS)
    fold_end_many(&GPU_OF(mine, thread), segment,
                  tile.row + thread / FOLD_THREAD_COLS * FOLD_ROWS_MANY,
                  tile.col + thread % FOLD_THREAD_COLS * GPU_EIGHT, bad);
}

/* Sums of one panel, which are in memory between panels. */
COMPUTE_SHARED void fold_store_sums(const struct fold_mine *mine,
                                    const struct device_panel_sum *task,
                                    const struct fold_tile *tile, unsigned thread)
{
    const uint64_t col = tile->col + thread % FOLD_THREAD_COLS * GPU_EIGHT;
    const uint64_t row = tile->row + thread / FOLD_THREAD_COLS * FOLD_ROWS_ONE;

    GPU_UNROLL
    for (unsigned i = 0; i < FOLD_ROWS_ONE; i++) {
        GPU_UNROLL
        for (unsigned j = 0; j < GPU_EIGHT; j++) {
            float *cell = task->sum + (row + i) * task->stride + col + j;

            if (row + i < tile->rows && col + j < tile->cols)
                *cell = f32_canonical(task->first ? mine->acc[i][j]
                                                  : f32_add(*cell, mine->acc[i][j]));
        }
    }
}

COMPUTE_SHARED void fold_panel_block(const struct device_panel_sum *task,
                                     const struct fold_grid *grid, struct fold_shared *shared,
                                     uint64_t block)
{
    const unsigned tile_rows = FOLD_THREAD_ROWS * FOLD_ROWS_ONE;
    struct fold_tile tile;
    GPU_MINE(struct fold_mine, mine, GPU_THREADS);

    tile.row = block / grid->tiles_across * tile_rows;
    tile.col = block % grid->tiles_across * FOLD_TILE_COLS;
    tile.rows = task->rows;
    tile.cols = task->cols;
    GPU_PHASE(thread, GPU_THREADS)
    fold_zero(&GPU_OF(mine, thread), FOLD_ROWS_ONE);
    for (uint32_t k = 0; k < task->rank; k += FOLD_STEP) {
        struct fold_step step;

        step.a = task->a;
        step.b = task->b;
        step.b_stride = task->b_stride;
        step.rank = task->rank;
        step.k = k;
        step.ranks = gpu_lesser(task->rank - k, FOLD_STEP);
        GPU_PHASE(thread, GPU_THREADS)
        {
            fold_load_a(shared, &step, &tile, thread);
            fold_load_b(shared, &step, &tile, tile_rows, thread);
        }
        GPU_PHASE(thread, GPU_THREADS)
        fold_chain(&GPU_OF(mine, thread), shared, &step, FOLD_ROWS_ONE, thread);
    }
    GPU_PHASE(thread, GPU_THREADS)
    fold_store_sums(&GPU_OF(mine, thread), task, &tile, thread);
}

/* Rows of elements that no delta changes, each a segment. */
struct fold_rows_converted {
    struct fold_segment row; /* the first of them: one row, no delta */
    uint64_t src_stride;     /* in elements */
    uint64_t dst_stride;
    uint64_t rows;
    uint64_t eights; /* of a row */
};

COMPUTE_SHARED void fold_convert(const struct fold_rows_converted *work, uint64_t *bad,
                                 uint64_t eight_index)
{
    const uint64_t row = element_divide(eight_index, work->eights);
    const uint64_t col = (eight_index - row * work->eights) * GPU_EIGHT;
    struct fold_segment segment = work->row;
    struct fold_rows whole;
    struct gpu_eight eight;
    float w[GPU_EIGHT];

    if (row >= work->rows)
        return;
    segment.src = (const unsigned char *)segment.src +
                  row * work->src_stride * element_bytes(segment.src_dtype);
    segment.dst = (unsigned char *)segment.dst +
                  row * work->dst_stride * element_bytes(segment.dst_dtype);
    whole = fold_rows_of(&segment, 0, col, 1);
    if (whole.alignment) {
        fold_fetch(&eight, &whole, 0);
        gpu_widen_eight(w, &eight, segment.src_dtype);
        if (!fold_store(w, &whole, 0))
            fold_mend(&whole, 1, row * work->dst_stride, bad);
    } else {
        const struct fold_run run = fold_run_of(&segment, 0, col);

        fold_load_run(w, &segment, &run);
        fold_store_run(w, &segment, &run, row * work->dst_stride, bad);
    }
}

COMPUTE_SHARED void fold_convert_block(const struct fold_rows_converted *work, uint64_t *bad,
                                       uint64_t block)
{
    GPU_PHASE(thread, GPU_THREADS)
    fold_convert(work, bad, block * GPU_THREADS + thread);
}

#endif

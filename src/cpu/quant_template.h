/*
 * quant_template.h - the quant operations for one instruction set
 *
 * A file of one instruction set defines the parameters below and includes this
 * file once.  Each lane does exactly what quant_scalar.c does for one element.
 *
 *     QUANT_TABLE      name of the struct quant_ops that is defined here
 *     QUANT_NAME       its name as text
 *     QUANT_FOLD       the fold operations of this instruction set
 *     QUANT_VECTOR     type of a vector of floats
 *     QUANT_WIDTH      floats in it, at most 16
 *     QUANT_NUMBERS    type that holds a table of 16 floats
 *
 *     QUANT_VECTOR q_set(float), q_load(const float *), void q_store(float *, QUANT_VECTOR)
 *     QUANT_VECTOR q_mul(x, y), q_sub(x, y)
 *     QUANT_VECTOR q_peak(peak, x): lanes of |x| or peak, whichever is larger as an integer pattern
 *     bool q_reaches(peak, limit): whether a lane of peak is at least this pattern
 *     QUANT_VECTOR q_round_bf16(x), q_round_f16(x): rounded and widened again; x is no NaN
 *     QUANT_NUMBERS q_numbers(const float table[16])
 *     QUANT_VECTOR q_lookup(numbers, codes), q_signed(codes), q_unsigned(codes), q_e4m3(codes):
 *         QUANT_WIDTH bytes at `codes` as numbers
 *     void q_nibbles(out, src, high_first): the 32 codes of 16 bytes, a byte each
 *
 * How it is fast: a run of a stored row goes through small buffers in the L1 cache, its codes a
 * byte each, its scales and zero points spread to one for each element.  So one loop without a
 * choice in it serves every size of block.  A run with a result that is not finite is an error
 * nearly always: the range is then left to the definition.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/convert.h"
#include "compute/element.h"
#include "compute/quant_layout.h"

#include <string.h>

#define QUANT_INLINE static inline __attribute__((always_inline))

#define QUANT_RUN 512u  /* elements of a stored row that are worked on together */
#define QUANT_SLACK 32u /* that the last vector of a run may reach over */
/* Stored rows and columns that are turned together: a cache line of each result row, at least. */
#define QUANT_TILE_ROWS 16u
#define QUANT_TILE_COLS 128u

#include "cpu/quant_fields.h"

struct work {
    const struct quant_matrix *matrix;
    const struct quant_whole *whole;
    struct quant_grid grid;
    struct quant_view views[QUANT_PART_COUNT];
    /* What scales[] and zeros[] hold, if anything. */
    uint64_t line;
    uint64_t col;
    size_t count;

    uint8_t codes[QUANT_RUN + QUANT_SLACK];
    uint8_t fields[QUANT_RUN + QUANT_SLACK]; /* zero points, scales of a byte */
    float cells[QUANT_RUN + QUANT_SLACK];    /* one for each block */
    float scales[QUANT_RUN + QUANT_SLACK];   /* one for each element */
    float zeros[QUANT_RUN + QUANT_SLACK];
};

/* ---------------------------------------------------------------------- scales and zero points */

static void load_scales(struct work *work, uint64_t line, uint64_t cell, size_t count)
{
    const struct quant_view *view = &work->views[QUANT_PART_SCALES];
    const enum dtype dtype = work->matrix->scale_dtype;
    const struct quant_whole *whole = work->whole;
    const uint8_t *src = quant_at(view, line, cell * dtype_bytes(dtype));
    float *cells = work->cells;

    if (dtype == DTYPE_U8) {
        uint64_t block = line * view->plane.cols + cell;

        for (size_t c = 0; c < count; c++)
            cells[c] = whole->map[src[c]] * whole->nested[(block + c) / 256] + whole->offset;
    } else if (dtype == DTYPE_F8_E8M0) {
        for (size_t c = 0; c < count; c++)
            cells[c] = f32_from_bits(e8m0_decode(src[c]));
    } else if (dtype == DTYPE_F8_E4M3) {
        memcpy(work->fields, src, count);
        for (size_t c = 0; c < count; c += QUANT_WIDTH)
            q_store(cells + c, q_e4m3(work->fields + c));
    } else {
        QUANT_FOLD.decode(cells, src, dtype, count);
    }
    if (work->matrix->scale == QUANT_SCALE_TIMES_WHOLE) {
        for (size_t c = 0; c < count; c++)
            cells[c] *= whole->whole;
    } else if (work->matrix->scale == QUANT_SCALE_OVER_WHOLE) {
        for (size_t c = 0; c < count; c++)
            cells[c] /= whole->whole;
    }
}

/* Zero points, or biases with the other sign: both are subtracted. */
static void load_numbers(struct work *work, uint64_t matrix, uint64_t block_row, uint64_t cell,
                         size_t count)
{
    const struct quant_view *view = &work->views[QUANT_PART_ZEROS];
    const enum dtype dtype = work->matrix->scale_dtype;
    uint64_t line = matrix * view->plane.lines + block_row;

    QUANT_FOLD.decode(work->cells, quant_at(view, line, cell * dtype_bytes(dtype)), dtype, count);
    for (size_t c = 0; work->matrix->zeros == QUANT_ZEROS_BIASES && c < count; c++)
        work->cells[c] = -work->cells[c];
}

static void load_zeros(struct work *work, uint64_t matrix, uint64_t block_row, uint64_t cell,
                       size_t count)
{
    const int middle = work->matrix->codes == QUANT_UNSIGNED ? 1 << (work->matrix->bits - 1) : 0;
    uint8_t *fields = work->fields;

    if (quant_zeros_are_numbers(work->matrix)) {
        load_numbers(work, matrix, block_row, cell, count);
        return;
    }
    unpack(fields, &work->views[QUANT_PART_ZEROS], matrix, block_row, cell, count);
    if (work->matrix->zeros == QUANT_ZEROS_BYTES) {
        for (size_t c = 0; c < count; c++)
            work->cells[c] = (float)((int8_t)fields[c] + middle);
        return;
    }
    if (work->matrix->zeros == QUANT_ZEROS_WORDS_1 && work->matrix->bits == 3) {
        for (size_t c = 0; c < count; c++)
            fields[c] = (fields[c] + 1) & 7;
    }
    for (size_t c = 0; c < count; c += QUANT_WIDTH)
        q_store(work->cells + c, q_unsigned(fields + c));
}

/* One number for each of `count` elements from column `col` on, of the blocks that they are in. */
static void spread(float *out, const float *cells, uint64_t block_cols, uint64_t col, size_t count)
{
    uint64_t left = block_cols - col % block_cols;

    if (block_cols == 1) {
        memcpy(out, cells, count * sizeof(float));
        return;
    }
    for (size_t k = 0; k < count; left = block_cols) {
        size_t end = k + (size_t)min_u64(left, count - k);
        QUANT_VECTOR x = q_set(*cells++);

        for (size_t i = k; i < end; i += QUANT_WIDTH)
            q_store(out + i, x);
        k = end;
    }
}

static void load_blocks(struct work *work, uint64_t matrix, uint64_t row, uint64_t col,
                        size_t count)
{
    const struct quant_grid *grid = &work->grid;
    const struct quant_whole *whole = work->whole;
    uint64_t block_row = whole->group_of ? whole->group_of[row] : row / grid->block_rows;
    uint64_t line = matrix * work->views[QUANT_PART_SCALES].plane.lines + block_row;
    uint64_t cell = col / grid->block_cols;
    size_t cells = (size_t)((col + count - 1) / grid->block_cols - cell + 1);

    if (work->count == count && work->col == col && work->line == line)
        return;
    load_scales(work, line, cell, cells);
    spread(work->scales, work->cells, grid->block_cols, col, count);
    if (work->views[QUANT_PART_ZEROS].plane.lines) {
        load_zeros(work, matrix, block_row, cell, cells);
        spread(work->zeros, work->cells, grid->block_cols, col, count);
    }
    work->count = count;
    work->col = col;
    work->line = line;
}

/* -------------------------------------------------------------------------------- the products */

/* What a loop is made for.  An enumerator of 4-bit tables stands for all of them. */
struct kind {
    enum quant_codes codes;
    bool row_127;
    enum quant_zeros zeros; /* NUMBERS, BIASES, or NONE for all others */
    enum dtype result;
};

QUANT_INLINE QUANT_VECTOR numbers_of(const struct work *work, struct kind kind,
                                     QUANT_NUMBERS numbers, size_t k)
{
    if (kind.codes == QUANT_E4M3)
        return q_e4m3(work->codes + k);
    if (kind.codes == QUANT_SIGNED)
        return q_sub(q_signed(work->codes + k), q_load(work->zeros + k));
    if (kind.codes == QUANT_UNSIGNED && kind.zeros == QUANT_ZEROS_BIASES)
        return q_unsigned(work->codes + k);
    if (kind.codes == QUANT_UNSIGNED)
        return q_sub(q_unsigned(work->codes + k), q_load(work->zeros + k));
    return q_lookup(numbers, work->codes + k);
}

QUANT_INLINE QUANT_VECTOR rounded(QUANT_VECTOR x, enum dtype dtype)
{
    if (dtype == DTYPE_BF16)
        return q_round_bf16(x);
    if (dtype == DTYPE_F16)
        return q_round_f16(x);
    return x;
}

/* Always inlined with a constant kind.  Returns whether a result is not finite. */
QUANT_INLINE bool multiply_as(float *dst, const struct work *work, size_t count, struct kind kind)
{
    const enum quant_codes codes = work->matrix->codes;
    const QUANT_NUMBERS numbers = q_numbers(quant_tables[codes <= QUANT_E2M1 ? codes : 0]);
    uint32_t overflow = F32_OVERFLOW;
    QUANT_VECTOR peak = q_set(0.0f);
    float last[QUANT_WIDTH];

    if (kind.result == DTYPE_BF16)
        overflow = BF16_OVERFLOW;
    else if (kind.result == DTYPE_F16)
        overflow = F16_OVERFLOW;
    for (size_t k = 0; k < count; k += QUANT_WIDTH) {
        QUANT_VECTOR w = numbers_of(work, kind, numbers, k);

        if (kind.zeros == QUANT_ZEROS_NUMBERS) {
            peak = q_peak(peak, w);
            w = rounded(w, kind.result);
        }
        w = q_mul(w, q_load(work->scales + k));
        if (kind.zeros == QUANT_ZEROS_BIASES) {
            peak = q_peak(peak, w);
            w = q_sub(rounded(w, kind.result), q_load(work->zeros + k));
        }
        if (kind.row_127)
            w = q_mul(w, q_set(1.0f / 127.0f));
        peak = q_peak(peak, w);
        w = rounded(w, kind.result);
        if (__builtin_expect(count - k >= QUANT_WIDTH, 1)) {
            q_store(dst + k, w);
        } else {
            q_store(last, w);
            memcpy(dst + k, last, (count - k) * sizeof(float));
        }
    }
    return q_reaches(peak, overflow);
}

QUANT_INLINE bool multiply_codes(float *dst, const struct work *work, size_t count,
                                 enum quant_codes codes, bool row_127, enum quant_zeros zeros)
{
    const enum dtype result = work->matrix->result_dtype;

    if (result == DTYPE_BF16)
        return multiply_as(dst, work, count, (struct kind){ codes, row_127, zeros, DTYPE_BF16 });
    if (result == DTYPE_F16)
        return multiply_as(dst, work, count, (struct kind){ codes, row_127, zeros, DTYPE_F16 });
    return multiply_as(dst, work, count, (struct kind){ codes, row_127, zeros, DTYPE_F32 });
}

/* The same of numbers that are not quantised.  Returns, as decode_run(), whether one is not finite.
 */
static bool widen_run(float *dst, const struct work *work, uint64_t matrix, uint64_t row,
                      uint64_t col, size_t count)
{
    const struct quant_view *view = &work->views[QUANT_PART_CODES];
    const enum dtype dtype = work->matrix->scale_dtype;
    const unsigned bytes = view->plane.bits / 8;
    const uint8_t *src = quant_at(view, matrix * view->plane.lines + row, col * bytes);
    bool bad = false;

    for (size_t k = 0; k < count; k++) {
        dst[k] = f32_from_bits(element_load(src + k * bytes, dtype));
        bad |= !element_is_finite(dst[k]);
    }
    return bad;
}

/* Elements [col, col + count) of a stored row; count is at most QUANT_RUN. */
static bool decode_run(struct work *work, float *dst, uint64_t matrix, uint64_t row, uint64_t col,
                       size_t count)
{
    if (work->matrix->codes == QUANT_FLOATS)
        return widen_run(dst, work, matrix, row, col, count);
    unpack(work->codes, &work->views[QUANT_PART_CODES], matrix, row, col, count);
    load_blocks(work, matrix, row, col, count);
    switch (work->matrix->codes) {
    case QUANT_E4M3:
        return multiply_codes(dst, work, count, QUANT_E4M3, false, QUANT_ZEROS_NONE);
    case QUANT_SIGNED:
        if (work->matrix->scale == QUANT_SCALE_ROW_127)
            return multiply_codes(dst, work, count, QUANT_SIGNED, true, QUANT_ZEROS_NONE);
        return multiply_codes(dst, work, count, QUANT_SIGNED, false, QUANT_ZEROS_NONE);
    case QUANT_UNSIGNED:
        if (work->matrix->zeros == QUANT_ZEROS_NUMBERS)
            return multiply_codes(dst, work, count, QUANT_UNSIGNED, false, QUANT_ZEROS_NUMBERS);
        if (work->matrix->zeros == QUANT_ZEROS_BIASES)
            return multiply_codes(dst, work, count, QUANT_UNSIGNED, false, QUANT_ZEROS_BIASES);
        return multiply_codes(dst, work, count, QUANT_UNSIGNED, false, QUANT_ZEROS_NONE);
    default:
        return multiply_codes(dst, work, count, QUANT_NF4, false, QUANT_ZEROS_NONE);
    }
}

/* --------------------------------------------------------------------------- ranges of elements */

/* From column `col` of a row, `limit` at most, ending where fields begin at a byte. */
static size_t run_count(uint64_t col, uint64_t left, size_t limit)
{
    return (size_t)min_u64(left, limit - col % 8);
}

static bool decode_rows(struct work *work, float *dst, uint64_t first, size_t count)
{
    const struct quant_grid *grid = &work->grid;
    uint64_t elements = grid->rows * grid->cols;
    uint64_t matrix = first / elements;
    uint64_t row = first % elements / grid->cols;
    uint64_t col = first % elements % grid->cols;
    bool bad = false;

    while (count) {
        size_t run = run_count(col, min_u64(grid->cols - col, count), QUANT_RUN);

        bad |= decode_run(work, dst, matrix, row, col, run);
        dst += run;
        count -= run;
        col += run;
        if (col == grid->cols) {
            col = 0;
            row++;
        }
    }
    return bad;
}

/* A range of a transposed matrix; dst is that of its first element. */
struct turn {
    float *dst;
    uint64_t first; /* in the matrix */
    uint64_t end;
    uint64_t width; /* of a logical row */
};

/* Logical rows from `row` on, `rows` of them, columns from `col` on, `cols` of them. */
static void turn_tile(const struct turn *turn, const float *tile, uint64_t row, size_t rows,
                      uint64_t col, size_t cols)
{
    for (size_t r = 0; r < rows; r++) {
        uint64_t index = (row + r) * turn->width + col;
        uint64_t begin = index < turn->first ? turn->first - index : 0;
        uint64_t end = index < turn->end ? min_u64(cols, turn->end - index) : 0;

        if (begin == 0 && end == QUANT_TILE_ROWS) {
            float *out = turn->dst + (index - turn->first);

            for (size_t c = 0; c < QUANT_TILE_ROWS; c++)
                out[c] = tile[c * QUANT_TILE_COLS + r];
            continue;
        }
        for (uint64_t c = begin; c < end; c++)
            turn->dst[index + c - turn->first] = tile[c * QUANT_TILE_COLS + r];
    }
}

static bool decode_transposed(struct work *work, float *dst, uint64_t first, size_t count)
{
    const struct quant_grid *grid = &work->grid;
    uint64_t elements = grid->rows * grid->cols;
    uint64_t matrix = first / elements;
    struct turn turn = { dst, first % elements, first % elements + count, grid->rows };
    uint64_t row_end = (turn.end - 1) / turn.width + 1;
    float tile[QUANT_TILE_ROWS * QUANT_TILE_COLS];
    bool bad = false;
    size_t rows, cols;

    for (uint64_t row = turn.first / turn.width; row < row_end; row += rows) {
        rows = run_count(row, row_end - row, QUANT_TILE_COLS);
        for (uint64_t col = 0; col < turn.width; col += cols) {
            cols = (size_t)min_u64(turn.width - col, QUANT_TILE_ROWS);
            for (size_t c = 0; c < cols; c++)
                bad |= decode_run(work, tile + c * QUANT_TILE_COLS, matrix, col + c, row, rows);
            turn_tile(&turn, tile, row, rows, col, cols);
        }
    }
    return bad;
}

static size_t decode(float *dst, const struct quant_matrix *matrix,
                     const struct quant_source *source, uint64_t first, size_t count)
{
    struct work work = { .matrix = matrix, .whole = source->whole, .grid = quant_grid_of(matrix) };
    bool bad;

    if (count == 0)
        return FOLD_FINITE;
    if (matrix->zeros == QUANT_ZEROS_MIDDLE) {
        for (size_t k = 0; k < QUANT_RUN + QUANT_SLACK; k++)
            work.zeros[k] = (float)(1 << (matrix->bits - 1));
    }
    quant_views_of(work.views, matrix, source);
    if (matrix->transposed)
        bad = decode_transposed(&work, dst, first, count);
    else
        bad = decode_rows(&work, dst, first, count);
    return bad ? quant_scalar.decode(dst, matrix, source, first, count) : FOLD_FINITE;
}

const struct quant_ops QUANT_TABLE = { .name = QUANT_NAME, .decode = decode };

/*
 * fold_template.h - the fold operations for one instruction set
 *
 * A file of one instruction set defines the parameters below and includes this
 * file once.  The lanes of a vector are columns, so each lane does exactly what
 * fold_scalar.c does for one element, in the same order.
 *
 *     FOLD_TABLE      name of the struct fold_ops that is defined here
 *     FOLD_NAME       its name as text
 *     FOLD_VECTOR     type of a vector of floats
 *     FOLD_WIDTH      floats in it, a divisor of FOLD_LANES
 *     FOLD_DOUBLES    type of a vector of FOLD_WIDTH / 2 doubles
 *     FOLD_ROWS       rows of the register tile, at most 16
 *     FOLD_TILE_COLS  its columns, a multiple of FOLD_WIDTH that divides FOLD_GROUP
 *     FOLD_ROWS_SMALL rows of the tile for the rows left over, then single rows; 1: none
 *
 *     FOLD_VECTOR v_zero(void), v_set(float)
 *     FOLD_VECTOR v_load(const float *), void v_store(float *, FOLD_VECTOR)   at any address
 *     FOLD_VECTOR v_add(x, y), v_mul(x, y), v_fma(x, y, z): x * y + z, one rounding
 *     FOLD_VECTOR v_peak(peak, x): lanes of |x| or peak, whichever is larger as an integer pattern
 *     bool v_reaches(peak, limit): whether a lane of peak is at least this pattern
 *     FOLD_VECTOR v_canonical(x): every NaN as the canonical one
 *     FOLD_DOUBLES d_load(const double *), void d_store(double *, FOLD_DOUBLES), d_canonical(x)
 *     FOLD_DOUBLES d_lower(FOLD_VECTOR), d_upper(FOLD_VECTOR): half of the lanes, widened
 *     FOLD_DOUBLES d_add_square(sum, x): sum + x * x
 *     void load_bf16(FOLD_VECTOR x[FOLD_VECTORS], const unsigned char *src), likewise load_f16:
 *         FOLD_TILE_COLS elements at any address
 *     void store_bf16(unsigned char *dst, const FOLD_VECTOR x[FOLD_VECTORS]), likewise store_f16:
 *         the reverse, rounded; no x is a NaN but the canonical one
 *
 * How it is fast: a tile of FOLD_ROWS x FOLD_TILE_COLS sums stays in registers for a whole chain; W
 * is decoded, changed and encoded there.  The tiles walk a block of columns whose part of A fits
 * into the L2 cache, row after row, so that A is read from memory once per segment and W in long
 * runs.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "compute/convert.h"
#include "compute/fold.h"

#include <string.h>

#define FOLD_VECTORS (FOLD_TILE_COLS / FOLD_WIDTH)
#define FOLD_INLINE static inline __attribute__((always_inline))
#define FOLD_NOINLINE __attribute__((noinline))
/* The arrays of vectors are registers only where the loops over them are unrolled. */
#if defined(__clang__)
#define FOLD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FOLD_UNROLL _Pragma("GCC unroll 16")
#endif

/*
 * Bytes of A that are walked again and again.  They fit into every L2; on a Zen 4 with 1 MiB of it
 * 128 and 512 KiB are as fast (ranks 16, 64 and 256).
 */
#define FOLD_BLOCK_BYTES (256u << 10)
#define FOLD_ELEMENT_BYTES_MAX sizeof(float)

FOLD_INLINE void load_f32(FOLD_VECTOR x[FOLD_VECTORS], const unsigned char *src)
{
    FOLD_UNROLL
    for (unsigned v = 0; v < FOLD_VECTORS; v++)
        x[v] = v_load((const float *)(const void *)(src + v * sizeof(FOLD_VECTOR)));
}

FOLD_INLINE void store_f32(unsigned char *dst, const FOLD_VECTOR x[FOLD_VECTORS])
{
    FOLD_UNROLL
    for (unsigned v = 0; v < FOLD_VECTORS; v++)
        v_store((float *)(void *)(dst + v * sizeof(FOLD_VECTOR)), x[v]);
}

FOLD_INLINE void load_cells(FOLD_VECTOR x[FOLD_VECTORS], const unsigned char *src, enum dtype dtype)
{
    if (dtype == DTYPE_BF16)
        load_bf16(x, src);
    else if (dtype == DTYPE_F16)
        load_f16(x, src);
    else
        load_f32(x, src);
}

FOLD_INLINE void store_cells(unsigned char *dst, const FOLD_VECTOR x[FOLD_VECTORS],
                             enum dtype dtype)
{
    if (dtype == DTYPE_BF16)
        store_bf16(dst, x);
    else if (dtype == DTYPE_F16)
        store_f16(dst, x);
    else
        store_f32(dst, x);
}

/* The least magnitude that is not finite after encoding, as a pattern. */
static uint32_t overflow_of(enum dtype dtype)
{
    if (dtype == DTYPE_F32)
        return F32_OVERFLOW;
    return dtype == DTYPE_BF16 ? BF16_OVERFLOW : F16_OVERFLOW;
}

/* The slow second look: index of the first element that is not finite. */
static size_t first_nonfinite(const unsigned char *dst, enum dtype dtype, size_t count)
{
    uint16_t half;
    uint32_t word;

    for (size_t i = 0; i < count; i++) {
        if (dtype == DTYPE_F32) {
            memcpy(&word, dst + i * sizeof(word), sizeof(word));
            if ((word & F32_MAGNITUDE) >= F32_INFINITY)
                return i;
        } else {
            uint16_t infinity = dtype == DTYPE_BF16 ? 0x7f80 : 0x7c00;

            memcpy(&half, dst + i * sizeof(half), sizeof(half));
            if ((half & infinity) == infinity)
                return i;
        }
    }
    return FOLD_FINITE;
}

/* ------------------------------------------------------------------------- one tile, one panel */

/* FOLD_TILE_COLS elements in each of some rows. */
struct cells {
    const unsigned char *bytes;
    size_t stride; /* bytes from row to row */
    enum dtype dtype;
};

/* What is done to a tile while it is in registers: at first acc is a chain over a panel, */
struct tile {
    const float *a;  /* the tile's first column in the panel's first row of a packed A */
    const float *b;  /* the panel's first column in the tile's first row of B */
    size_t b_stride; /* floats from row to row */
    uint32_t rank;   /* of the panel */
    const float *scale;
    struct cells sum;   /* then acc = sum + acc, unless sum.bytes is NULL; the dtype is F32 */
    struct cells w;     /* then acc = w + scale * acc, unless w.bytes is NULL */
    unsigned char *dst; /* then it is encoded */
    size_t dst_stride;
    enum dtype dst_dtype;
    uint32_t overflow; /* overflow_of(dst_dtype) */
};

FOLD_INLINE void chain(FOLD_VECTOR acc[FOLD_ROWS][FOLD_VECTORS], const struct tile *tile,
                       unsigned rows)
{
    const float *a = tile->a;
    const float *a_end = a + (size_t)tile->rank * FOLD_GROUP;
    const size_t stride = tile->b_stride;
    const unsigned bases = (rows + 2) / 3;
    const float *base[(FOLD_ROWS + 2) / 3]; /* in B, of every third row */

    FOLD_UNROLL
    for (unsigned i = 0; i < rows; i++) {
        FOLD_UNROLL
        for (unsigned v = 0; v < FOLD_VECTORS; v++)
            acc[i][v] = v_zero();
    }
    FOLD_UNROLL
    for (unsigned i = 0; i < bases; i++)
        base[i] = tile->b + 3 * i * stride;
    for (; a != a_end; a += FOLD_GROUP) {
        FOLD_VECTOR x[FOLD_VECTORS];

        FOLD_UNROLL
        for (unsigned v = 0; v < FOLD_VECTORS; v++)
            x[v] = v_load(a + v * FOLD_WIDTH);
        FOLD_UNROLL
        for (unsigned i = 0; i < rows; i++) {
            FOLD_VECTOR y = v_set(base[i / 3][i % 3 * stride]);

            FOLD_UNROLL
            for (unsigned v = 0; v < FOLD_VECTORS; v++)
                acc[i][v] = v_fma(y, x[v], acc[i][v]);
        }
        /*
         * The compiler must not see how these move, or it keeps a pointer for each row, more than
         * there are registers, instead of a third of them and the stride.
         */
        FOLD_UNROLL
        for (unsigned i = 0; i < bases; i++) {
            base[i]++;
            __asm__("" : "+r"(base[i]));
        }
    }
}

/* acc = cells + acc, or acc = cells + scale * acc with two roundings. */
FOLD_INLINE void add_cells(FOLD_VECTOR acc[FOLD_ROWS][FOLD_VECTORS], const struct cells *cells,
                           enum dtype dtype, const float *scale, unsigned rows)
{
    FOLD_UNROLL
    for (unsigned i = 0; i < rows; i++) {
        FOLD_VECTOR x[FOLD_VECTORS];

        load_cells(x, cells->bytes + i * cells->stride, dtype);
        FOLD_UNROLL
        for (unsigned v = 0; v < FOLD_VECTORS; v++)
            acc[i][v] = v_add(x[v], scale ? v_mul(v_set(*scale), acc[i][v]) : acc[i][v]);
    }
}

FOLD_INLINE void store_rows(const struct tile *tile, enum dtype dtype,
                            FOLD_VECTOR acc[FOLD_ROWS][FOLD_VECTORS], unsigned rows)
{
    FOLD_UNROLL
    for (unsigned i = 0; i < rows; i++)
        store_cells(tile->dst + i * tile->dst_stride, acc[i], dtype);
}

/* Returns whether an encoded number is not finite. */
FOLD_INLINE bool run_tile(const struct tile *tile, unsigned rows)
{
    FOLD_VECTOR acc[FOLD_ROWS][FOLD_VECTORS];
    FOLD_VECTOR peak = v_zero();
    bool bad;

    chain(acc, tile, rows);
    if (tile->sum.bytes)
        add_cells(acc, &tile->sum, DTYPE_F32, NULL, rows);
    if (tile->w.bytes && tile->w.dtype == DTYPE_BF16)
        add_cells(acc, &tile->w, DTYPE_BF16, tile->scale, rows);
    else if (tile->w.bytes && tile->w.dtype == DTYPE_F16)
        add_cells(acc, &tile->w, DTYPE_F16, tile->scale, rows);
    else if (tile->w.bytes)
        add_cells(acc, &tile->w, DTYPE_F32, tile->scale, rows);

    FOLD_UNROLL
    for (unsigned i = 0; i < rows; i++) {
        FOLD_UNROLL
        for (unsigned v = 0; v < FOLD_VECTORS; v++)
            peak = v_peak(peak, acc[i][v]);
    }
    bad = v_reaches(peak, tile->overflow);
    if (__builtin_expect(bad, 0)) {
        FOLD_UNROLL
        for (unsigned i = 0; i < rows; i++) {
            FOLD_UNROLL
            for (unsigned v = 0; v < FOLD_VECTORS; v++)
                acc[i][v] = v_canonical(acc[i][v]);
        }
    }
    if (tile->dst_dtype == DTYPE_BF16)
        store_rows(tile, DTYPE_BF16, acc, rows);
    else if (tile->dst_dtype == DTYPE_F16)
        store_rows(tile, DTYPE_F16, acc, rows);
    else
        store_rows(tile, DTYPE_F32, acc, rows);
    return bad;
}

static FOLD_NOINLINE bool run_tile_large(const struct tile *tile)
{
    return run_tile(tile, FOLD_ROWS);
}

static FOLD_NOINLINE bool run_tile_small(const struct tile *tile)
{
    return run_tile(tile, FOLD_ROWS_SMALL);
}

static FOLD_NOINLINE bool run_tile_single(const struct tile *tile)
{
    return run_tile(tile, 1);
}

/* Rows of the next tile where so many are left. */
static unsigned tile_rows(uint64_t left)
{
    if (left >= FOLD_ROWS)
        return FOLD_ROWS;
    return left >= FOLD_ROWS_SMALL ? FOLD_ROWS_SMALL : 1;
}

static bool run_tile_rows(const struct tile *tile, unsigned rows)
{
    if (rows == FOLD_ROWS)
        return run_tile_large(tile);
    return rows > 1 ? run_tile_small(tile) : run_tile_single(tile);
}

/* -------------------------------------------------------------------------------- the whole fold
 */

static uint64_t lesser(uint64_t x, uint64_t y)
{
    return x < y ? x : y;
}

static uint64_t greater(uint64_t x, uint64_t y)
{
    return x > y ? x : y;
}

/* Where a column, the first of a tile, begins in a packed A. */
static size_t col_of_packed(uint64_t rank, uint64_t col)
{
    return (col / FOLD_GROUP * rank) * FOLD_GROUP + col % FOLD_GROUP;
}

static void set_dst(struct tile *tile, unsigned char *dst, size_t stride, enum dtype dtype)
{
    tile->dst = dst;
    tile->dst_stride = stride;
    tile->dst_dtype = dtype;
    tile->overflow = overflow_of(dtype);
}

/* A tile of a segment, as fold_tile() needs it. */
struct place {
    const struct fold_segment *segment;
    struct cells src;
    unsigned char *dst;
    size_t dst_stride;
    uint64_t row; /* of B */
    uint64_t col; /* of A */
    unsigned rows;
};

/* All panels of all deltas; returns whether a result is not finite. */
FOLD_INLINE bool fold_tile(const struct place *place)
{
    const struct fold_segment *segment = place->segment;
    float sums[FOLD_ROWS * FOLD_TILE_COLS]; /* of the panels so far */
    float w[FOLD_ROWS * FOLD_TILE_COLS];    /* after the deltas so far */
    const size_t stride = FOLD_TILE_COLS * sizeof(float);
    struct tile tile;
    bool bad = false;

    for (unsigned d = 0; d < segment->delta_count; d++) {
        const struct fold_delta *delta = &segment->deltas[d];
        uint32_t left = delta->rank;

        tile.a = delta->a + col_of_packed(delta->rank, place->col);
        tile.b = delta->b + place->row * delta->rank;
        tile.b_stride = delta->rank;
        tile.scale = &delta->scale;
        tile.sum.bytes = NULL;
        for (; left > FOLD_PANEL; left -= FOLD_PANEL) {
            tile.rank = FOLD_PANEL;
            tile.w.bytes = NULL;
            set_dst(&tile, (unsigned char *)sums, stride, DTYPE_F32);
            run_tile_rows(&tile, place->rows);
            tile.sum = (struct cells){ (unsigned char *)sums, stride, DTYPE_F32 };
            tile.a += FOLD_PANEL * FOLD_GROUP;
            tile.b += FOLD_PANEL;
        }
        tile.rank = left;
        tile.w = d == 0 ? place->src : (struct cells){ (unsigned char *)w, stride, DTYPE_F32 };
        if (d + 1 < segment->delta_count)
            set_dst(&tile, (unsigned char *)w, stride, DTYPE_F32);
        else
            set_dst(&tile, place->dst, place->dst_stride, segment->dst_dtype);
        bad = run_tile_rows(&tile, place->rows);
    }
    return bad;
}

/*
 * The same where only the columns from `lane` on, `count` of them, are in the segment: src and dst
 * are those of the first of these columns.  It works on copies; what the other lanes hold does not
 * matter, but it must be initialised.
 */
static FOLD_NOINLINE bool fold_tile_part(const struct place *place, size_t lane, size_t count)
{
    const size_t src_bytes = dtype_bytes(place->segment->src_dtype);
    const size_t dst_bytes = dtype_bytes(place->segment->dst_dtype);
    unsigned char src[FOLD_ROWS * FOLD_TILE_COLS * FOLD_ELEMENT_BYTES_MAX] = { 0 };
    unsigned char dst[FOLD_ROWS * FOLD_TILE_COLS * FOLD_ELEMENT_BYTES_MAX];
    struct place copy = *place;
    bool bad;

    copy.col -= lane;
    copy.src.bytes = src;
    copy.src.stride = FOLD_TILE_COLS * src_bytes;
    copy.dst = dst;
    copy.dst_stride = FOLD_TILE_COLS * dst_bytes;
    for (unsigned i = 0; i < place->rows; i++)
        memcpy(src + i * copy.src.stride + lane * src_bytes,
               place->src.bytes + i * place->src.stride, count * src_bytes);
    bad = fold_tile(&copy);
    for (unsigned i = 0; i < place->rows; i++)
        memcpy(place->dst + i * place->dst_stride, dst + i * copy.dst_stride + lane * dst_bytes,
               count * dst_bytes);
    return bad;
}

/* Rows [row, row_end) of the segment, columns [col_begin, col_end) of the target. */
static bool fold_rectangle(const struct fold_segment *segment, uint64_t row, uint64_t row_end,
                           uint64_t col_begin, uint64_t col_end)
{
    const size_t src_bytes = dtype_bytes(segment->src_dtype);
    const size_t dst_bytes = dtype_bytes(segment->dst_dtype);
    bool bad = false;
    struct place place = {
        .segment = segment,
        .src.stride = segment->cols * src_bytes,
        .src.dtype = segment->src_dtype,
        .dst_stride = segment->cols * dst_bytes,
    };

    for (; row < row_end; row += place.rows) {
        uint64_t col_next;

        place.rows = tile_rows(row_end - row);
        place.row = row;
        for (uint64_t col = col_begin; col < col_end; col = col_next) {
            size_t index = row * segment->cols + col - segment->first_col;
            uint64_t lane = col % FOLD_TILE_COLS;

            col_next = lesser(col - lane + FOLD_TILE_COLS, col_end);
            place.col = col;
            place.src.bytes = (const unsigned char *)segment->src + index * src_bytes;
            place.dst = (unsigned char *)segment->dst + index * dst_bytes;
            if (col_next - col == FOLD_TILE_COLS)
                bad |= fold_tile(&place);
            else
                bad |= fold_tile_part(&place, lane, col_next - col);
        }
    }
    return bad;
}

/* Columns of A of this rank that fit into FOLD_BLOCK_BYTES, in whole groups, at least one. */
static uint64_t block_cols(uint64_t rank)
{
    uint64_t groups = FOLD_BLOCK_BYTES / (rank * FOLD_GROUP * sizeof(float));

    return (groups ? groups : 1) * FOLD_GROUP;
}

static bool fold_deltas(const struct fold_segment *segment)
{
    const uint64_t cols = segment->cols;
    const uint64_t end = segment->first_col + segment->count; /* from the start of row 0 */
    const uint64_t whole_begin = segment->first_col ? 1 : 0;  /* whole rows; may be none */
    const uint64_t whole_end = end / cols;
    uint64_t rank = 0;
    uint64_t step;
    bool bad = false;

    for (unsigned d = 0; d < segment->delta_count; d++)
        rank += segment->deltas[d].rank;
    step = block_cols(rank);
    for (uint64_t col = 0; col < cols; col += step) {
        uint64_t col_end = lesser(col + step, cols);

        if (segment->first_col)
            bad |= fold_rectangle(segment, 0, 1, greater(col, segment->first_col),
                                  lesser(col_end, end));
        bad |= fold_rectangle(segment, whole_begin, whole_end, col, col_end);
        if (whole_end >= whole_begin)
            bad |= fold_rectangle(segment, whole_end, whole_end + 1, col,
                                  lesser(col_end, end - whole_end * cols));
    }
    return bad;
}

/* ------------------------------------------------------------------------------- conversions */

/* One group; returns whether a result is not finite. */
FOLD_INLINE bool convert_group(unsigned char *dst, enum dtype dst_dtype, const unsigned char *src,
                               enum dtype src_dtype, uint32_t overflow)
{
    FOLD_VECTOR x[FOLD_VECTORS];
    FOLD_VECTOR peak = v_zero();
    bool bad;

    load_cells(x, src, src_dtype);
    FOLD_UNROLL
    for (unsigned v = 0; v < FOLD_VECTORS; v++)
        peak = v_peak(peak, x[v]);
    bad = v_reaches(peak, overflow);
    if (__builtin_expect(bad, 0)) {
        FOLD_UNROLL
        for (unsigned v = 0; v < FOLD_VECTORS; v++)
            x[v] = v_canonical(x[v]);
    }
    store_cells(dst, x, dst_dtype);
    return bad;
}

/* Always inlined with constant dtypes, so that the loop holds no choice. */
FOLD_INLINE bool convert_as(unsigned char *dst, enum dtype dst_dtype, const unsigned char *src,
                            enum dtype src_dtype, size_t count)
{
    const size_t src_bytes = dtype_bytes(src_dtype);
    const size_t dst_bytes = dtype_bytes(dst_dtype);
    const uint32_t overflow = overflow_of(dst_dtype);
    unsigned char src_copy[FOLD_TILE_COLS * FOLD_ELEMENT_BYTES_MAX] = { 0 };
    unsigned char dst_copy[FOLD_TILE_COLS * FOLD_ELEMENT_BYTES_MAX];
    bool bad = false;

    for (; count >= FOLD_TILE_COLS; count -= FOLD_TILE_COLS) {
        bad |= convert_group(dst, dst_dtype, src, src_dtype, overflow);
        src += FOLD_TILE_COLS * src_bytes;
        dst += FOLD_TILE_COLS * dst_bytes;
    }
    if (count) {
        memcpy(src_copy, src, count * src_bytes);
        bad |= convert_group(dst_copy, dst_dtype, src_copy, src_dtype, overflow);
        memcpy(dst, dst_copy, count * dst_bytes);
    }
    return bad;
}

FOLD_INLINE bool convert_from(unsigned char *dst, enum dtype dst_dtype, const unsigned char *src,
                              enum dtype src_dtype, size_t count)
{
    if (dst_dtype == DTYPE_BF16)
        return convert_as(dst, DTYPE_BF16, src, src_dtype, count);
    if (dst_dtype == DTYPE_F16)
        return convert_as(dst, DTYPE_F16, src, src_dtype, count);
    return convert_as(dst, DTYPE_F32, src, src_dtype, count);
}

static bool convert(unsigned char *dst, enum dtype dst_dtype, const unsigned char *src,
                    enum dtype src_dtype, size_t count)
{
    if (src_dtype == DTYPE_BF16)
        return convert_from(dst, dst_dtype, src, DTYPE_BF16, count);
    if (src_dtype == DTYPE_F16)
        return convert_from(dst, dst_dtype, src, DTYPE_F16, count);
    return convert_from(dst, dst_dtype, src, DTYPE_F32, count);
}

static size_t fold(const struct fold_segment *segment)
{
    unsigned char *dst = segment->dst;
    bool bad;

    if (segment->delta_count)
        bad = fold_deltas(segment);
    else
        bad = convert(dst, segment->dst_dtype, segment->src, segment->src_dtype, segment->count);
    return bad ? first_nonfinite(dst, segment->dst_dtype, segment->count) : FOLD_FINITE;
}

static size_t encode(void *dst, enum dtype dst_dtype, const float *src, size_t count)
{
    if (!convert(dst, dst_dtype, (const unsigned char *)src, DTYPE_F32, count))
        return FOLD_FINITE;
    return first_nonfinite(dst, dst_dtype, count);
}

/* Unlike a conversion to F32, decoding keeps the payload of a NaN. */
FOLD_INLINE void decode_as(float *dst, const unsigned char *src, enum dtype dtype, size_t count)
{
    unsigned char src_copy[FOLD_TILE_COLS * FOLD_ELEMENT_BYTES_MAX] = { 0 };
    float dst_copy[FOLD_TILE_COLS];
    FOLD_VECTOR x[FOLD_VECTORS];

    for (; count >= FOLD_TILE_COLS; count -= FOLD_TILE_COLS) {
        load_cells(x, src, dtype);
        store_f32((unsigned char *)dst, x);
        src += FOLD_TILE_COLS * dtype_bytes(dtype);
        dst += FOLD_TILE_COLS;
    }
    if (count) {
        memcpy(src_copy, src, count * dtype_bytes(dtype));
        load_cells(x, src_copy, dtype);
        store_f32((unsigned char *)dst_copy, x);
        memcpy(dst, dst_copy, count * sizeof(float));
    }
}

static void decode(float *dst, const void *src, enum dtype src_dtype, size_t count)
{
    if (src_dtype == DTYPE_BF16)
        decode_as(dst, src, DTYPE_BF16, count);
    else if (src_dtype == DTYPE_F16)
        decode_as(dst, src, DTYPE_F16, count);
    else if (count)
        memcpy(dst, src, count * sizeof(float));
}

/* -------------------------------------------------------------------------- the fold in pieces */

/* The first `count` columns of a tile whose sums are `stride` bytes from row to row. */
static void panel_tile_part(struct tile tile, unsigned rows, size_t count)
{
    float copy[FOLD_ROWS * FOLD_TILE_COLS] = { 0 };
    unsigned char *sum = tile.dst;
    size_t sum_stride = tile.dst_stride;

    set_dst(&tile, (unsigned char *)copy, FOLD_TILE_COLS * sizeof(float), DTYPE_F32);
    if (tile.sum.bytes) {
        tile.sum = (struct cells){ tile.dst, tile.dst_stride, DTYPE_F32 };
        for (unsigned i = 0; i < rows; i++)
            memcpy(tile.dst + i * tile.dst_stride, sum + i * sum_stride, count * sizeof(float));
    }
    run_tile_rows(&tile, rows);
    for (unsigned i = 0; i < rows; i++)
        memcpy(sum + i * sum_stride, tile.dst + i * tile.dst_stride, count * sizeof(float));
}

static void panel_sum(float *sum, size_t stride, size_t rows, size_t cols, const float *a,
                      const float *b, size_t b_stride, uint32_t rank, bool first)
{
    const size_t step = block_cols(rank);
    struct tile tile = { .b_stride = b_stride, .rank = rank };

    for (size_t block = 0; block < cols; block += step) {
        size_t block_end = lesser(block + step, cols);
        unsigned count;

        for (size_t row = 0; row < rows; row += count) {
            count = tile_rows(rows - row);
            tile.b = b + row * b_stride;
            for (size_t col = block; col < block_end; col += FOLD_TILE_COLS) {
                unsigned char *cell = (unsigned char *)(sum + row * stride + col);

                tile.a = a + col_of_packed(rank, col);
                set_dst(&tile, cell, stride * sizeof(float), DTYPE_F32);
                tile.sum = (struct cells){ first ? NULL : cell, stride * sizeof(float), DTYPE_F32 };
                if (cols - col >= FOLD_TILE_COLS)
                    run_tile_rows(&tile, count);
                else
                    panel_tile_part(tile, count, cols - col);
            }
        }
    }
}

FOLD_INLINE FOLD_VECTOR scaled_sum(const float *w, float scale, const float *sum)
{
    return v_canonical(v_add(v_load(w), v_mul(v_set(scale), v_load(sum))));
}

static void add_scaled(float *w, const float *sum, float scale, size_t count)
{
    float w_copy[FOLD_WIDTH] = { 0 };
    float sum_copy[FOLD_WIDTH] = { 0 };

    for (; count >= FOLD_WIDTH; count -= FOLD_WIDTH) {
        v_store(w, scaled_sum(w, scale, sum));
        w += FOLD_WIDTH;
        sum += FOLD_WIDTH;
    }
    if (count) {
        memcpy(w_copy, w, count * sizeof(float));
        memcpy(sum_copy, sum, count * sizeof(float));
        v_store(w_copy, scaled_sum(w_copy, scale, sum_copy));
        memcpy(w, w_copy, count * sizeof(float));
    }
}

/* --------------------------------------------------------------------------------------- norms */

/*
 * Vectors first, then the elements left over, one by one: there are few, and nothing but the
 * elements asked for is read or written.
 */

#define FOLD_HALF (FOLD_WIDTH / 2)

static void add_squares(double lanes[FOLD_LANES], const float *x, size_t count)
{
    FOLD_DOUBLES sums[FOLD_LANES / FOLD_HALF];

    if (count >= FOLD_LANES) {
        FOLD_UNROLL
        for (unsigned s = 0; s < FOLD_LANES / FOLD_HALF; s++)
            sums[s] = d_load(lanes + s * FOLD_HALF);
        for (; count >= FOLD_LANES; count -= FOLD_LANES) {
            FOLD_UNROLL
            for (unsigned s = 0; s < FOLD_LANES / FOLD_HALF; s += 2) {
                FOLD_VECTOR y = v_load(x + s * FOLD_HALF);

                sums[s] = d_add_square(sums[s], d_lower(y));
                sums[s + 1] = d_add_square(sums[s + 1], d_upper(y));
            }
            x += FOLD_LANES;
        }
        FOLD_UNROLL
        for (unsigned s = 0; s < FOLD_LANES / FOLD_HALF; s++)
            d_store(lanes + s * FOLD_HALF, d_canonical(sums[s]));
    }
    for (size_t i = 0; i < count; i++)
        lanes[i] = f64_canonical(f64_add_square(lanes[i], x[i]));
}

static void add_squares_each(double *sums, const float *x, size_t count)
{
    size_t i = 0;

    for (; count - i >= FOLD_WIDTH; i += FOLD_WIDTH) {
        FOLD_VECTOR y = v_load(x + i);
        FOLD_DOUBLES lower = d_add_square(d_load(sums + i), d_lower(y));
        FOLD_DOUBLES upper = d_add_square(d_load(sums + i + FOLD_HALF), d_upper(y));

        d_store(sums + i, d_canonical(lower));
        d_store(sums + i + FOLD_HALF, d_canonical(upper));
    }
    for (; i < count; i++)
        sums[i] = f64_canonical(f64_add_square(sums[i], x[i]));
}

static void scale(float *x, float factor, size_t count)
{
    size_t i = 0;

    for (; count - i >= FOLD_WIDTH; i += FOLD_WIDTH)
        v_store(x + i, v_canonical(v_mul(v_set(factor), v_load(x + i))));
    for (; i < count; i++)
        x[i] = f32_canonical(factor * x[i]);
}

static void scale_each(float *x, const float *factors, size_t count)
{
    size_t i = 0;

    for (; count - i >= FOLD_WIDTH; i += FOLD_WIDTH)
        v_store(x + i, v_canonical(v_mul(v_load(factors + i), v_load(x + i))));
    for (; i < count; i++)
        x[i] = f32_canonical(factors[i] * x[i]);
}

const struct fold_ops FOLD_TABLE = {
    .name = FOLD_NAME,
    .fold = fold,
    .decode = decode,
    .encode = encode,
    .panel_sum = panel_sum,
    .add_scaled = add_scaled,
    .add_squares = add_squares,
    .add_squares_each = add_squares_each,
    .scale = scale,
    .scale_each = scale_each,
};

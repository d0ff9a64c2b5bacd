/*
 * panels.c - a target whose factor A is too large to stay in memory
 *
 * The run is cut into rectangles of W that fit a tile.  For each rectangle and
 * each delta, panels of FOLD_PANEL ranks are fetched (A: the columns of the
 * rectangle; B: its rows) and added up, in the order that docs/NUMERICS.md fixes,
 * so the bits are those of the direct way.  A is fetched again for every
 * rectangle below another: slower, and rank never sets the memory.
 */
#include "pipeline/internal.h"

#include <string.h>

static int fetch_panel(const struct job *job, const struct scratch *scratch,
                       const struct plan_delta *delta, uint64_t target_cols,
                       const struct rectangle *at, uint32_t k, uint32_t ranks, float *b_panel,
                       struct error *err)
{
    float *row = b_panel; /* first a row of A, then the panel of B */

    for (uint32_t i = 0; i < ranks; i++) {
        uint64_t skipped = (uint64_t)(k + i) * target_cols + at->col;

        if (factors_fetch_at(job, scratch, &delta->a, skipped, row, at->cols, err))
            return err->code;
        fold_pack_row(scratch->a, ranks, i, row, at->cols);
    }
    for (uint64_t r = 0; r < at->rows; r++) {
        uint64_t skipped = rectangle_row(at, r) * delta->rank + k;

        if (factors_fetch_at(job, scratch, &delta->b, skipped, b_panel + r * ranks, ranks, err))
            return err->code;
    }
    if (lane_send(scratch->lane, scratch->a, fold_packed_floats(ranks, at->cols) * sizeof(float),
                  err))
        return err->code;
    return lane_send(scratch->lane, b_panel, at->rows * ranks * sizeof(float), err);
}

int panels_add_delta(const struct job *job, const struct scratch *scratch,
                     const struct plan_delta *delta, uint64_t target_cols,
                     const struct rectangle *at, struct error *err)
{
    *scratch->held = NULL; /* panels go through a */
    for (uint32_t k = 0; k < delta->rank; k += FOLD_PANEL) {
        uint32_t ranks = delta->rank - k < FOLD_PANEL ? delta->rank - k : FOLD_PANEL;
        const struct device_panel_sum sum = { .sum = scratch->tile_sum,
                                              .stride = at->cols,
                                              .rows = at->rows,
                                              .cols = at->cols,
                                              .a = scratch->a,
                                              .b = scratch->b,
                                              .b_stride = ranks,
                                              .rank = ranks,
                                              .first = k == 0 };

        if (fetch_panel(job, scratch, delta, target_cols, at, k, ranks, scratch->b, err) ||
            lane_panel_sum(scratch->lane, &sum, err))
            return err->code;
    }
    return lane_add_scaled(scratch->lane, scratch->tile_w, scratch->tile_sum, delta->scale,
                           at->rows * at->cols, err);
}

/* Decode the rectangle, add every delta, encode it. */
static int fold_rectangle(const struct job *job, const struct scratch *scratch,
                          const struct block_run *run, const struct rectangle *at,
                          struct error *err)
{
    const struct plan_target *target = run->target;
    uint64_t first = at->row * target->cols + at->col - run->first;
    const struct lane_check check = run_check(run, first);

    if (lane_decode(scratch->lane, scratch->tile_w, run->src + first * dtype_bytes(run->dtype_in),
                    run->dtype_in, at->rows, at->cols, target->cols, err))
        return err->code;
    for (uint32_t i = 0; i < target->delta_count; i++) {
        const struct plan_delta *delta = &job->plan->deltas[target->delta_first + i];

        if (panels_add_delta(job, scratch, delta, target->cols, at, err))
            return err->code;
        if (delta->norm != EDIT_NO_NORM && dora_scale(job, scratch, target, i, scratch->tile_w,
                                                      at->row, at->rows, at->col, at->cols, err))
            return err->code;
    }
    return lane_encode(scratch->lane, run->dst + first * dtype_bytes(run->dtype_out),
                       run->dtype_out, scratch->tile_w, at->rows, at->cols, target->cols, &check,
                       err);
}

/* Whole rows [row, row + rows), or the columns [col, col_end) of one row. */
static int fold_band(const struct job *job, const struct scratch *scratch,
                     const struct block_run *run, uint64_t row, uint64_t rows, uint64_t col,
                     uint64_t col_end, struct error *err)
{
    /* All rows at once, because every band of rows fetches all of A again. */
    uint64_t rows_max = min_u64(rows, PLAN_B_FLOATS / FOLD_PANEL);
    uint64_t cols_max = min_u64(PLAN_TILE_COLS,
                                align_down(PLAN_TILE_FLOATS / rows_max, FOLD_GROUP));

    for (uint64_t done = 0; done < rows; done += rows_max) {
        for (uint64_t c = col; c < col_end; c += cols_max) {
            const struct rectangle at = { NULL, row + done, min_u64(rows_max, rows - done), c,
                                          min_u64(cols_max, col_end - c) };

            if (fold_rectangle(job, scratch, run, &at, err))
                return err->code;
        }
    }
    return 0;
}

int run_fold_panels(const struct job *job, const struct scratch *scratch,
                    const struct block_run *run, struct error *err)
{
    uint64_t cols = run->target->cols;
    uint64_t end = run->first + run->count;
    uint64_t element = run->first;

    while (element < end) {
        uint64_t row = element / cols;
        uint64_t col = element % cols;
        uint64_t rows = col == 0 && end - element >= cols ? (end - element) / cols : 1;
        uint64_t col_end = rows == 1 ? min_u64(cols, col + (end - element)) : cols;

        if (fold_band(job, scratch, run, row, rows, col, col_end, err))
            return err->code;
        element += rows == 1 ? col_end - col : rows * cols;
    }
    return 0;
}

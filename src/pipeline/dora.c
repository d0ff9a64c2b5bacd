/*
 * dora.c - deltas with a trained magnitude: W' = m / |W + delta| * (W + delta)
 *
 * A run is folded in fp32 in the worker's tiles.  The norm of a row that the run
 * holds whole is made there; every other factor was made before the work
 * (prepare_norms.c).  Each delta's norm is that of the base's own W plus that delta
 * alone, as PEFT has it since 0.21.
 */
#include "pipeline/internal.h"

/* Whole rows [row, row + rows), or the columns [col, col + cols) of one row. */
struct piece {
    uint64_t row;
    uint64_t rows;
    uint64_t col;
    uint64_t cols;
    const uint8_t *src;
};

static int fold_tile(const struct scratch *scratch, const struct plan_target *target,
                     const struct piece *piece, const struct fold_delta *delta, float *tile,
                     struct error *err)
{
    const struct fold_segment segment = {
        .src = tile,
        .dst = tile,
        .src_dtype = DTYPE_F32,
        .dst_dtype = DTYPE_F32,
        .cols = target->cols,
        .first_col = piece->col,
        .count = piece->rows * piece->cols,
        .deltas = delta,
        .delta_count = 1,
    };

    /* What is not finite is found when it is encoded. */
    return lane_fold(scratch->lane, &segment, NULL, err);
}

static const struct plan_cut *find_cut(const struct job *job, const struct plan_target *target,
                                       uint64_t row)
{
    const struct plan_cut *cuts = job->plan->cuts + target->cut_first;
    uint32_t low = 0;
    uint32_t high = target->cut_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (cuts[middle].row < row)
            low = middle + 1;
        else
            high = middle;
    }
    return &cuts[low];
}

int dora_scale(const struct job *job, const struct scratch *scratch,
               const struct plan_target *target, uint32_t index, float *w, uint64_t row,
               uint64_t rows, uint64_t col, uint64_t cols, struct error *err)
{
    const struct plan_delta *delta = &job->plan->deltas[target->delta_first + index];
    struct device_scale scale = { .x = w, .rows = rows, .cols = cols };

    if (delta->norm == EDIT_NORM_OF_COLS) {
        scale.factors = job->norms + delta->norms + col;
        return lane_scale_cols(scratch->lane, &scale, err);
    }
    if (target->norms == PLAN_NORMS_ALL) {
        scale.factors = job->norms + delta->norms + row;
        return lane_scale_rows(scratch->lane, &scale, err);
    }
    scale.rows = 1;
    for (uint64_t r = 0; r < rows; r++) {
        scale.x = w + r * cols;
        scale.factors = job->norms + find_cut(job, target, row + r)->norms + index;
        if (lane_scale_rows(scratch->lane, &scale, err))
            return err->code;
    }
    return 0;
}

/* Add delta `index` to tile_w, and scale. */
static int apply_delta(const struct job *job, const struct scratch *scratch,
                       const struct block_run *run, const struct piece *piece, uint32_t index,
                       const struct fold_delta *deltas, float *magnitudes, struct error *err)
{
    const struct plan_target *target = run->target;
    const struct plan_delta *delta = &job->plan->deltas[target->delta_first + index];
    const struct device_dora_rows rows = {
        .w = scratch->tile_w,
        .alone = index > 0 ? scratch->tile_sum : scratch->tile_w, /* W + this delta alone */
        .magnitudes = magnitudes,
        .rows = piece->rows,
        .cols = piece->cols,
    };

    if (fold_tile(scratch, target, piece, &deltas[index], scratch->tile_w, err))
        return err->code;
    if (delta->norm == EDIT_NO_NORM)
        return 0;
    if (target->norms == PLAN_NORMS_ALL || piece->cols != target->cols)
        return dora_scale(job, scratch, target, index, scratch->tile_w, piece->row, piece->rows,
                          piece->col, piece->cols, err);
    if (index > 0 && (lane_decode(scratch->lane, scratch->tile_sum, piece->src, run->dtype_in, 1,
                                  piece->rows * piece->cols, 0, err) ||
                      fold_tile(scratch, target, piece, &deltas[index], scratch->tile_sum, err)))
        return err->code;
    if (factors_fetch_at(job, scratch, &delta->magnitude, piece->row, magnitudes, piece->rows,
                         err) ||
        lane_send(scratch->lane, magnitudes, piece->rows * sizeof(float), err))
        return err->code;
    return lane_dora_rows(scratch->lane, &rows, err);
}

static int fold_piece(const struct job *job, const struct scratch *scratch,
                      const struct block_run *run, const struct piece *piece, const float *packed,
                      uint8_t *dst, struct error *err)
{
    const struct plan_target *target = run->target;
    uint64_t count = piece->rows * piece->cols;
    const struct lane_check check = run_check(run, (size_t)(dst - run->dst) /
                                                       dtype_bytes(run->dtype_out));
    struct fold_delta deltas[PLAN_DELTAS_MAX];

    if (run_fetch_b(job, scratch, target, piece->row, piece->rows, deltas, packed, err) ||
        lane_decode(scratch->lane, scratch->tile_w, piece->src, run->dtype_in, 1, count, 0, err))
        return err->code;
    for (uint32_t i = 0; i < target->delta_count; i++) {
        /* Magnitudes lie behind the rows of B. */
        if (apply_delta(job, scratch, run, piece, i, deltas,
                        scratch->b + piece->rows * target->rank_sum, err))
            return err->code;
    }
    return lane_encode(scratch->lane, dst, run->dtype_out, scratch->tile_w, 1, count, 0, &check,
                       err);
}

int run_fold_dora(const struct job *job, const struct scratch *scratch, const struct block_run *run,
                  const float *packed, struct error *err)
{
    const struct plan_target *target = run->target;
    uint64_t width_in = dtype_bytes(run->dtype_in);
    uint64_t width_out = dtype_bytes(run->dtype_out);
    uint64_t rows_max = PLAN_B_FLOATS / (target->rank_sum + 1);
    uint64_t cols = target->cols;

    if (cols <= PLAN_TILE_FLOATS)
        rows_max = min_u64(rows_max, PLAN_TILE_FLOATS / cols);
    for (uint64_t done = 0; done < run->count;) {
        uint64_t left = run->count - done;
        struct piece piece = { .row = (run->first + done) / cols,
                               .rows = 1,
                               .col = (run->first + done) % cols,
                               .src = run->src + done * width_in };

        if (piece.col == 0 && left >= cols && cols <= PLAN_TILE_FLOATS) {
            piece.rows = min_u64(rows_max, left / cols);
            piece.cols = cols;
        } else {
            piece.cols = min_u64(min_u64(left, cols - piece.col), PLAN_TILE_FLOATS);
        }
        if (fold_piece(job, scratch, run, &piece, packed, run->dst + done * width_out, err))
            return err->code;
        done += piece.rows * piece.cols;
    }
    return 0;
}

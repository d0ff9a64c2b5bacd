/*
 * prepare_norms.c - factors of DoRA that need more than one block
 *
 * plan/norms.c says which.  W is read once more, in rectangles, and each delta is
 * added with panels of its factors, so that rank and size do not matter.
 */
#include "pipeline/prepare.h"

#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 64u /* whose sums are held at once */

struct norm_work {
    struct job *job;
    const struct scratch *scratch;
    const struct plan_target *target;
    const struct plan_tensor *tensor;
    struct file source;          /* of the tensor */
    double (*lanes)[FOLD_LANES]; /* of ROWS_MAX rows */
    double *sums;                /* of the columns, plan.sum_count of them */
};

/* Row `r` of the rectangle, which is `row` of the tensor, as fp32 into its place in tile_w. */
static int read_row(const struct norm_work *work, const struct rectangle *at, uint64_t r,
                    uint64_t row, struct error *err)
{
    enum dtype dtype = (enum dtype)work->tensor->dtype_in;
    uint64_t width = dtype_bytes(dtype);
    uint64_t first = (row * work->target->cols + at->col) * width;
    uint8_t *raw = (uint8_t *)work->scratch->tile_sum;
    char quoted[QUOTED_BYTES];

    if (!work->tensor->whole &&
        file_pread(&work->source, raw, at->cols * width, work->tensor->in_offset + first, err)) {
        const char *path = work->job->plan->inputs[work->tensor->input].path;

        error_prefix(err, "'%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
        return err->code = ERR_FAILED;
    }
    if (work->tensor->patch_count && patches_apply(work->job, work->scratch, work->tensor, dtype,
                                                   first, first + at->cols * width, raw, err))
        return err->code;
    work->job->ops->decode(work->scratch->tile_w + r * at->cols, raw, dtype, at->cols);
    return 0;
}

/* W of the rectangle into tile_w. */
static int read_rectangle(const struct norm_work *work, const struct rectangle *at,
                          struct error *err)
{
    for (uint64_t r = 0; r < at->rows; r++) {
        uint64_t row = work->target->row_first + rectangle_row(at, r);

        if (work->tensor->roundtrip) {
            if (roundtrip_fetch(work->scratch, work->tensor, &work->source,
                                row * work->target->cols + at->col, at->cols,
                                work->scratch->tile_w + r * at->cols, err))
                return err->code;
            continue;
        }
        if (work->tensor->quant) {
            if (decode_fetch(work->job, work->scratch, work->tensor,
                             row * work->target->cols + at->col, at->cols,
                             work->scratch->tile_w + r * at->cols, err))
                return err->code;
            continue;
        }
        if (read_row(work, at, r, row, err))
            return err->code;
    }
    return 0;
}
/* Add the squares of the rows `rows` (from at) to lanes, or to the sums of the columns. */
static int add_band(const struct norm_work *work, const struct plan_delta *delta,
                    const struct rectangle *band, struct error *err)
{
    const struct fold_ops *ops = work->job->ops;

    for (uint64_t col = 0; col < work->target->cols; col += PLAN_TILE_COLS) {
        struct rectangle at = *band;

        at.col = col;
        at.cols = min_u64(PLAN_TILE_COLS, work->target->cols - col);
        if (read_rectangle(work, &at, err) ||
            panels_add_delta(work->job, work->scratch, delta, work->target->cols, &at, err))
            return err->code;
        for (uint64_t r = 0; r < at.rows; r++) {
            const float *x = work->scratch->tile_w + r * at.cols;

            if (delta->norm == EDIT_NORM_OF_COLS)
                ops->add_squares_each(work->sums + col, x, at.cols);
            else
                ops->add_squares(work->lanes[r], x, at.cols);
        }
    }
    return 0;
}

/* Factors of the rows of a band: where they go depends on how the target is worked on. */
static int set_rows(const struct norm_work *work, uint32_t index, const struct rectangle *band,
                    struct error *err)
{
    const struct plan_delta *delta = &work->job->plan->deltas[work->target->delta_first + index];

    for (uint64_t r = 0; r < band->rows; r++) {
        uint64_t row = rectangle_row(band, r);
        uint64_t place = band->cuts ? band->cuts[r].norms + index : delta->norms + row;
        float magnitude;

        if (factors_fetch_at(work->job, work->scratch, &delta->magnitude, row, &magnitude, 1, err))
            return err->code;
        work->job->norms[place] = fold_dora_factor(magnitude, fold_norm(work->lanes[r]));
    }
    return 0;
}

static int set_cols(const struct norm_work *work, const struct plan_delta *delta, struct error *err)
{
    float *factors = work->job->norms + delta->norms;

    if (factors_fetch(work->job, work->scratch, &delta->magnitude, factors, work->target->cols,
                      err))
        return err->code;
    for (uint64_t c = 0; c < work->target->cols; c++)
        factors[c] = fold_dora_factor(factors[c], fold_root(work->sums[c]));
    return 0;
}

/* `counts`: the bytes that are read have not been counted with another delta. */
static int make_norms(const struct norm_work *work, uint32_t index, bool counts,
                      struct prepare_watch *watch, struct error *err)
{
    const struct plan *plan = work->job->plan;
    const struct plan_target *target = work->target;
    const struct plan_delta *delta = &plan->deltas[target->delta_first + index];
    bool cut = target->norms == PLAN_NORMS_CUT;
    uint64_t rows = cut ? target->cut_count : target->rows;
    uint64_t row_bytes = cut ? 0 : target->cols * dtype_bytes((enum dtype)work->tensor->dtype_in);

    if (delta->norm == EDIT_NORM_OF_COLS)
        memset(work->sums, 0, target->cols * sizeof(*work->sums));
    for (uint64_t row = 0; row < rows; row += ROWS_MAX) {
        const struct rectangle band = { .cuts = cut ? plan->cuts + target->cut_first + row : NULL,
                                        .row = row,
                                        .rows = min_u64(ROWS_MAX, rows - row) };

        memset(work->lanes, 0, ROWS_MAX * sizeof(*work->lanes));
        if (prepare_step(watch, counts ? band.rows * row_bytes : 0, err) ||
            add_band(work, delta, &band, err))
            return err->code;
        if (delta->norm == EDIT_NORM_OF_ROWS && set_rows(work, index, &band, err))
            return err->code;
    }
    return delta->norm == EDIT_NORM_OF_COLS ? set_cols(work, delta, err) : 0;
}

static int prepare_target(struct norm_work *work, struct prepare_watch *watch, struct error *err)
{
    const struct plan_target *target = work->target;
    const struct plan *plan = work->job->plan;
    bool counts = true;
    int status = 0;

    if (file_open_input(&work->source, plan->inputs[work->tensor->input].path, FILE_DIRECT_OFF,
                        err))
        return err->code = ERR_FAILED; /* it was there when it was planned with */
    for (uint32_t i = 0; i < target->delta_count && !status; i++) {
        if (plan->deltas[target->delta_first + i].norm == EDIT_NO_NORM)
            continue;
        status = make_norms(work, i, counts, watch, err);
        counts = false;
    }
    file_close(&work->source);
    return status;
}

int prepare_norms(struct job *job, const struct scratch *scratch, struct prepare_watch *watch,
                  struct error *err)
{
    const struct plan *plan = job->plan;
    struct norm_work work = { .job = job, .scratch = scratch, .source = FILE_CLOSED };
    int status = 0;

    if (plan->norm_count == 0)
        return 0;
    work.lanes = calloc(ROWS_MAX, sizeof(*work.lanes));
    work.sums = calloc(plan->sum_count + 1, sizeof(*work.sums));
    if (!work.lanes || !work.sums)
        status = error_no_memory(err, "the norms");
    for (size_t i = 0; i < plan->target_count && !status; i++) {
        work.target = &plan->targets[i];
        work.tensor = &plan->tensors[work.target->tensor];
        if (work.target->norms == PLAN_NORMS_ALL ||
            (work.target->norms == PLAN_NORMS_CUT && work.target->cut_count))
            status = prepare_target(&work, watch, err);
    }
    free(work.lanes);
    free(work.sums);
    return status;
}

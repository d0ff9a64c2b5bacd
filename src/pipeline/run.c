/*
 * run.c - folding a run of elements of one tensor, with factors from where they are
 *
 * A target's factor A is, in the order of preference, in a region that all
 * workers share (fetched once), packed by the worker for this run, or, where it
 * fits nowhere, fetched panel by panel (panels.c).  Rows of B always come with
 * the run: they are read once in any case.
 */
#include "pipeline/internal.h"

static int convert(const struct scratch *scratch, const struct block_run *run, struct error *err)
{
    const struct lane_check check = run_check(run, 0);
    const struct fold_segment segment = {
        .src = run->src,
        .dst = run->dst,
        .src_dtype = run->dtype_in,
        .dst_dtype = run->dtype_out,
        .cols = run->count,
        .count = run->count,
    };

    return lane_fold(scratch->lane, &segment, &check, err);
}

const float *run_packed(const struct job *job, const struct scratch *scratch,
                        const struct plan_target *target, struct error *err)
{
    if (target->resident != PLAN_NO_TARGET)
        return job->regions[target->resident % 2].packed;
    if (*scratch->held == target)
        return scratch->a;
    *scratch->held = NULL;
    if (factors_pack(job, scratch, target, scratch->a, err) ||
        lane_send(scratch->lane, scratch->a,
                  fold_packed_floats(target->rank_sum, target->cols) * sizeof(float), err))
        return NULL;
    *scratch->held = target;
    return scratch->a;
}

int run_fetch_b(const struct job *job, const struct scratch *scratch,
                const struct plan_target *target, uint64_t row, uint64_t rows,
                struct fold_delta deltas[PLAN_DELTAS_MAX], const float *packed, struct error *err)
{
    float *b = scratch->b;

    for (uint32_t i = 0; i < target->delta_count; i++) {
        const struct plan_delta *delta = &job->plan->deltas[target->delta_first + i];

        if (factors_fetch_at(job, scratch, &delta->b, row * delta->rank, b, rows * delta->rank,
                             err))
            return err->code;
        deltas[i] = (struct fold_delta){
            .a = packed, .b = b, .rank = delta->rank, .scale = delta->scale
        };
        b += rows * delta->rank;
        packed += fold_packed_floats(delta->rank, target->cols);
    }
    return lane_send(scratch->lane, scratch->b, (size_t)(b - scratch->b) * sizeof(float), err);
}

static int fold_rows(const struct job *job, const struct scratch *scratch,
                     const struct block_run *run, const float *packed, struct error *err)
{
    const struct plan_target *target = run->target;
    uint64_t width_in = dtype_bytes(run->dtype_in);
    uint64_t width_out = dtype_bytes(run->dtype_out);
    uint64_t rows_max = PLAN_B_FLOATS / target->rank_sum;
    struct fold_delta deltas[PLAN_DELTAS_MAX];

    for (uint64_t done = 0; done < run->count;) {
        uint64_t element = run->first + done;
        uint64_t row = element / target->cols;
        uint64_t first_col = element % target->cols;
        uint64_t whole = min_u64(run->count - done, rows_max * target->cols - first_col);
        uint64_t rows = (first_col + whole + target->cols - 1) / target->cols;
        struct fold_segment segment = {
            .src = run->src + done * width_in,
            .dst = run->dst + done * width_out,
            .src_dtype = run->dtype_in,
            .dst_dtype = run->dtype_out,
            .cols = target->cols,
            .first_col = first_col,
            .count = whole,
            .deltas = deltas,
            .delta_count = target->delta_count,
        };
        const struct lane_check check = run_check(run, done);

        if (run_fetch_b(job, scratch, target, row, rows, deltas, packed, err) ||
            lane_fold(scratch->lane, &segment, &check, err))
            return err->code;
        done += whole;
    }
    return 0;
}

int run_fold(const struct job *job, const struct scratch *scratch, const struct block_run *run,
             struct error *err)
{
    const struct plan_target *target = run->target;
    const float *packed;

    if (run->count == 0)
        return 0;
    if (run->codes)
        return run_fold_quant(job, scratch, run, err);
    if (run->roundtrip)
        return run_fold_roundtrip(job, scratch, run, err);
    if (!target)
        return convert(scratch, run, err);
    if (plan_needs_panels(target))
        return run_fold_panels(job, scratch, run, err);
    packed = run_packed(job, scratch, target, err);
    if (!packed)
        return err->code;
    if (target->norms != PLAN_NORMS_NONE)
        return run_fold_dora(job, scratch, run, packed, err);
    return fold_rows(job, scratch, run, packed, err);
}

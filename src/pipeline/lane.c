/*
 * lane.c - each operation twice: at once with the tables, or as a task for the device
 */
#include "pipeline/lane_internal.h"

#include "compute/quant_layout.h"
#include "pipeline/internal.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>

static_assert(PLAN_DELTAS_MAX <= DEVICE_DELTAS_MAX, "a task has all deltas of a target");

static int result_not_finite(const struct lane_check *check, uint64_t element, enum device_bad bad,
                             struct error *err)
{
    static const char *const values[] = { "infinity", "-infinity", "NaN" };
    const struct plan_tensor *tensor = check->tensor;
    uint64_t cols = tensor->encoding      ? tensor->encoding->cols
                    : tensor->shape_count ? tensor->shape[tensor->shape_count - 1]
                                          : 1;
    char name[QUOTED_BYTES];

    return error_set(err, ERR_FORMAT,
                     "tensor '%s': element %" PRIu64 " (row %" PRIu64 ", column %" PRIu64
                     ") becomes %s in %s; --allow-nonfinite writes it all the same",
                     error_quote(name, sizeof(name), tensor->name, tensor->name_bytes), element,
                     element / cols, element % cols, values[bad], dtype_name(check->dtype));
}

int lane_not_finite(const struct lane_check *check, uint64_t index, enum device_bad bad,
                    struct error *err)
{
    const struct plan_tensor *tensor = check->tensor;
    uint64_t element = check->index + index;
    char name[QUOTED_BYTES];

    error_quote(name, sizeof(name), tensor->name, tensor->name_bytes);
    switch (check->kind) {
    case LANE_CHECK_RESULT:
        return result_not_finite(check, element, bad, err);
    case LANE_CHECK_BASE:
        return error_set(err, ERR_FORMAT,
                         "tensor '%s': element %" PRIu64 " of the base is not a finite number (its "
                         "code, its scale or both); --allow-nonfinite goes on all the same",
                         name, element);
    case LANE_CHECK_F16:
        return error_set(err, ERR_FORMAT,
                         "tensor '%s': element %" PRIu64 " becomes infinite in F16, through which "
                         "LLM.int8 goes; --allow-nonfinite writes it all the same",
                         name, element);
    }
    return 0;
}

int lane_look(const struct job *job, const struct lane_check *check, uint64_t bad,
              const void *result, struct error *err)
{
    enum device_bad class = DEVICE_BAD_NAN;
    float value;

    if (bad == FOLD_FINITE || !check || job->allow_nonfinite)
        return 0;
    if (check->kind == LANE_CHECK_RESULT) {
        fold_scalar.decode(&value, result, check->dtype, 1);
        if (!isnan(value))
            class = signbit(value) ? DEVICE_BAD_MINUS_INFINITY : DEVICE_BAD_INFINITY;
    }
    return lane_not_finite(check, bad, class, err);
}

static const void *element_at(const void *elements, enum dtype dtype, uint64_t index)
{
    return (const uint8_t *)elements + index * dtype_bytes(dtype);
}

static int convert(struct lane *lane, const struct device_convert *convert,
                   const struct lane_check *check, struct error *err)
{
    struct device_task task = { .op = DEVICE_CONVERT, .convert = *convert };

    task.convert.src = lane_at(lane, convert->src);
    task.convert.dst = lane_at(lane, convert->dst);
    return lane_run(lane, &task, check, err);
}

int lane_fold(struct lane *lane, const struct fold_segment *segment, const struct lane_check *check,
              struct error *err)
{
    struct device_task task = { .op = DEVICE_FOLD };
    size_t bad;

    if (!lane->ops) {
        bad = lane->job->ops->fold(segment);
        return lane_look(
            lane->job, check, bad,
            bad == FOLD_FINITE ? NULL : element_at(segment->dst, segment->dst_dtype, bad), err);
    }
    if (segment->delta_count == 0)
        return convert(lane,
                       &(const struct device_convert){ .src = segment->src,
                                                       .dst = segment->dst,
                                                       .src_dtype = segment->src_dtype,
                                                       .dst_dtype = segment->dst_dtype,
                                                       .rows = 1,
                                                       .cols = segment->count },
                       check, err);
    task.fold.segment = *segment;
    task.fold.segment.src = lane_at(lane, segment->src);
    task.fold.segment.dst = lane_at(lane, segment->dst);
    task.fold.segment.deltas = NULL;
    for (unsigned i = 0; i < segment->delta_count; i++) {
        task.fold.deltas[i] = segment->deltas[i];
        task.fold.deltas[i].a = lane_at(lane, segment->deltas[i].a);
        task.fold.deltas[i].b = lane_at(lane, segment->deltas[i].b);
    }
    return lane_run(lane, &task, check, err);
}

int lane_decode(struct lane *lane, float *dst, const void *src, enum dtype dtype, uint64_t rows,
                uint64_t cols, uint64_t src_stride, struct error *err)
{
    if (lane->ops)
        return convert(lane,
                       &(const struct device_convert){ .src = src,
                                                       .dst = dst,
                                                       .src_dtype = dtype,
                                                       .dst_dtype = DTYPE_F32,
                                                       .rows = rows,
                                                       .cols = cols,
                                                       .src_stride = src_stride,
                                                       .dst_stride = cols },
                       NULL, err);
    for (uint64_t r = 0; r < rows; r++)
        lane->job->ops->decode(dst + r * cols, element_at(src, dtype, r * src_stride), dtype, cols);
    return 0;
}

int lane_encode(struct lane *lane, void *dst, enum dtype dtype, const float *src, uint64_t rows,
                uint64_t cols, uint64_t dst_stride, const struct lane_check *check,
                struct error *err)
{
    if (lane->ops)
        return convert(lane,
                       &(const struct device_convert){ .src = src,
                                                       .dst = dst,
                                                       .src_dtype = DTYPE_F32,
                                                       .dst_dtype = dtype,
                                                       .rows = rows,
                                                       .cols = cols,
                                                       .src_stride = cols,
                                                       .dst_stride = dst_stride },
                       check, err);
    for (uint64_t r = 0; r < rows; r++) {
        uint8_t *row = (uint8_t *)dst + r * dst_stride * dtype_bytes(dtype);
        size_t bad = lane->job->ops->encode(row, dtype, src + r * cols, cols);

        if (bad != FOLD_FINITE &&
            lane_look(lane->job, check, r * dst_stride + bad, element_at(row, dtype, bad), err))
            return err->code;
    }
    return 0;
}

int lane_panel_sum(struct lane *lane, const struct device_panel_sum *sum, struct error *err)
{
    struct device_task task = { .op = DEVICE_PANEL_SUM, .panel_sum = *sum };

    if (!lane->ops) {
        lane->job->ops->panel_sum(sum->sum, sum->stride, sum->rows, sum->cols, sum->a, sum->b,
                                  sum->b_stride, sum->rank, sum->first);
        return 0;
    }
    task.panel_sum.sum = lane_at(lane, sum->sum);
    task.panel_sum.a = lane_at(lane, sum->a);
    task.panel_sum.b = lane_at(lane, sum->b);
    return lane_run(lane, &task, NULL, err);
}

int lane_add_scaled(struct lane *lane, float *w, const float *sum, float scale, uint64_t count,
                    struct error *err)
{
    struct device_task task = { .op = DEVICE_ADD_SCALED,
                                .add_scaled = { .w = lane_at(lane, w),
                                                .sum = lane_at(lane, sum),
                                                .scale = scale,
                                                .count = count } };

    if (lane->ops)
        return lane_run(lane, &task, NULL, err);
    lane->job->ops->add_scaled(w, sum, scale, count);
    return 0;
}

static int run_scale(struct lane *lane, enum device_op op, const struct device_scale *scale,
                     struct error *err)
{
    struct device_task task = { .op = op, .scale = *scale };

    task.scale.x = lane_at(lane, scale->x);
    task.scale.factors = lane_at(lane, scale->factors);
    return lane_run(lane, &task, NULL, err);
}

int lane_scale_rows(struct lane *lane, const struct device_scale *scale, struct error *err)
{
    if (lane->ops)
        return run_scale(lane, DEVICE_SCALE_ROWS, scale, err);
    for (uint64_t r = 0; r < scale->rows; r++)
        lane->job->ops->scale(scale->x + r * scale->cols, scale->factors[r], scale->cols);
    return 0;
}

int lane_scale_cols(struct lane *lane, const struct device_scale *scale, struct error *err)
{
    if (lane->ops)
        return run_scale(lane, DEVICE_SCALE_COLS, scale, err);
    for (uint64_t r = 0; r < scale->rows; r++)
        lane->job->ops->scale_each(scale->x + r * scale->cols, scale->factors, scale->cols);
    return 0;
}

int lane_dora_rows(struct lane *lane, const struct device_dora_rows *rows, struct error *err)
{
    struct device_task task = { .op = DEVICE_DORA_ROWS, .dora_rows = *rows };

    if (lane->ops) {
        task.dora_rows.w = lane_at(lane, rows->w);
        task.dora_rows.alone = lane_at(lane, rows->alone);
        task.dora_rows.magnitudes = lane_at(lane, rows->magnitudes);
        return lane_run(lane, &task, NULL, err);
    }
    for (uint64_t r = 0; r < rows->rows; r++) {
        double lanes[FOLD_LANES] = { 0 };
        float factor;

        lane->job->ops->add_squares(lanes, rows->alone + r * rows->cols, rows->cols);
        factor = fold_dora_factor(rows->magnitudes[r], fold_norm(lanes));
        lane->job->ops->scale(rows->w + r * rows->cols, factor, rows->cols);
    }
    return 0;
}

int lane_decode_codes(struct lane *lane, float *dst, const struct quant_matrix *matrix,
                      const struct quant_source *source, uint64_t first, uint64_t count,
                      const struct lane_check *check, struct error *err)
{
    struct device_task task = { .op = DEVICE_DECODE };
    struct device_decode *decode = &task.decode;

    if (!lane->ops)
        return lane_look(lane->job, check,
                         lane->job->quant->decode(dst, matrix, source, first, count), NULL, err);
    *decode = (struct device_decode){ .dst = lane_at(lane, dst),
                                      .matrix = *matrix,
                                      .source = *source,
                                      .whole = *source->whole,
                                      .first = first,
                                      .count = count };
    for (int i = 0; i < QUANT_PART_COUNT; i++)
        decode->source.parts[i] = lane_at(lane, source->parts[i]);
    decode->source.whole = NULL;
    decode->whole.nested = lane_at(lane, source->whole->nested);
    decode->whole.group_of = lane_at(lane, source->whole->group_of);
    return lane_run(lane, &task, check, err);
}

static int run_blocks(struct lane *lane, enum device_op op, const struct device_blocks *blocks,
                      struct error *err)
{
    struct device_task task = { .op = op, .blocks = *blocks };

    task.blocks.out = lane_at(lane, blocks->out);
    task.blocks.absmax = lane_at(lane, blocks->absmax);
    task.blocks.src = lane_at(lane, blocks->src);
    return lane_run(lane, &task, NULL, err);
}

int lane_bnb4(struct lane *lane, const struct device_blocks *blocks, struct error *err)
{
    if (lane->ops)
        return run_blocks(lane, DEVICE_BNB4, blocks, err);
    (void)lane->job->encode->bnb4(blocks->out, blocks->absmax, blocks->codes, blocks->src,
                                  blocks->count, blocks->block);
    return 0;
}

int lane_round_trip(struct lane *lane, const struct device_blocks *blocks, struct error *err)
{
    if (lane->ops)
        return run_blocks(lane, DEVICE_ROUND_TRIP, blocks, err);
    (void)lane->job->encode->bnb4_round_trip(blocks->out, blocks->codes, blocks->result_dtype,
                                             blocks->src, blocks->count, blocks->block);
    return 0;
}

/* Elements of one row and of whole blocks, but for the last, with the scales of these. */
static int scale_blocks(const struct lane *lane, const struct device_scaled *all, uint64_t at,
                        uint64_t count, const float *scales, const struct lane_check *check,
                        struct error *err)
{
    const float *src = all->src + (at - all->first);
    uint8_t *out = all->out + (at - all->first) / (all->codes == QUANT_E2M1 ? 2 : 1);
    size_t bad;

    if (all->integers) {
        encode_int8(out, src, count, scales, all->block_cols);
        return 0; /* what is not finite has been found where it was folded */
    }
    bad = lane->job->encode->scaled(out, all->codes, src, count, scales, all->block_cols);
    return bad == FOLD_FINITE ? 0 : lane_look(lane->job, check, at - all->first + bad, NULL, err);
}

int lane_scaled(struct lane *lane, const struct device_scaled *scaled,
                const struct lane_check *check, struct error *err)
{
    struct device_task task = { .op = DEVICE_SCALED, .scaled = *scaled };
    uint64_t down = quant_ceil(scaled->rows, scaled->block_rows);
    uint64_t across = quant_ceil(scaled->cols, scaled->block_cols);
    uint64_t end = scaled->first + scaled->count;

    if (lane->ops) {
        task.scaled.out = lane_at(lane, scaled->out);
        task.scaled.src = lane_at(lane, scaled->src);
        task.scaled.scales = lane_at(lane, scaled->scales);
        return lane_run(lane, &task, check, err);
    }
    for (uint64_t at = scaled->first; at < end;) {
        uint64_t row = at / scaled->cols;
        uint64_t col = at % scaled->cols;
        uint64_t line = row / scaled->rows * down + row % scaled->rows / scaled->block_rows;
        uint64_t block = col / scaled->block_cols;
        uint64_t stop = min_u64(end, (row + 1) * scaled->cols);
        const float *scales = scaled->scales + (line * across + block - scaled->scale_first);

        if (col % scaled->block_cols) /* the rest of a block first */
            stop = min_u64(stop, row * scaled->cols + (block + 1) * scaled->block_cols);
        if (scale_blocks(lane, scaled, at, stop - at, scales, check, err))
            return err->code;
        at = stop;
    }
    return 0;
}

/*
 * same.c - codes of a base that is written back in its own scheme
 *
 * A piece is folded to fp32 and encoded row by row with the scales of its blocks,
 * which prepare_scales.c has written to the file of repacked factors.
 */
#include "compute/quant_layout.h"
#include "pipeline/internal.h"

#define STEPS_MAX PLAN_ENCODED_ELEMENTS /* as many as encoder.values and raw hold */

int same_whole(const struct job *job, const struct plan_tensor *tensor, float *whole,
               struct error *err)
{
    const struct scheme_part *part = &tensor->encoding->same->whole;

    *whole = 1.0f;
    if (part->bytes == 0)
        return 0;
    return file_pread(&job->shards[part->shard], whole, sizeof(*whole), part->offset, err);
}

int same_scales(const struct job *job, const struct plan_tensor *tensor, struct plan_part part,
                uint8_t *out, struct error *err)
{
    return file_pread(&job->repacked, out, part.end - part.first,
                      tensor->encoding->absmax_offset + part.first, err);
}

/* The steps of blocks [first, first + count), as they are numbered in the tensor. */
static int fetch_steps(const struct job *job, const struct scratch *scratch,
                       const struct plan_tensor *tensor, uint64_t first, uint64_t count,
                       float whole, struct error *err)
{
    const struct quant_matrix *matrix = &tensor->encoding->same->matrix;
    uint64_t width = dtype_bytes(matrix->scale_dtype);
    const struct plan_part part = { first * width, (first + count) * width };

    if (same_scales(job, tensor, part, scratch->raw, err))
        return err->code;
    for (uint64_t i = 0; i < count; i++)
        scratch->encoder.values[i] = encode_step(scratch->raw + i * width, matrix, whole);
    return lane_send(scratch->lane, scratch->encoder.values, count * sizeof(float), err);
}

/* Blocks of scales, numbered in the tensor, that elements from `first` to before `end` are in;
 * those of whole rows of blocks where they are more than one row. */
static void find_steps(const struct quant_matrix *matrix, uint64_t first, uint64_t end,
                       uint64_t *step_first, uint64_t *step_end)
{
    uint64_t down = quant_ceil(matrix->rows, matrix->block_rows);
    uint64_t across = quant_ceil(matrix->cols, matrix->block_cols);
    uint64_t row = first / matrix->cols;
    uint64_t last = (end - 1) / matrix->cols;

    *step_first = (row / matrix->rows * down + row % matrix->rows / matrix->block_rows) * across;
    *step_end = (last / matrix->rows * down + last % matrix->rows / matrix->block_rows + 1) *
                across;
    if (row == last) {
        *step_end = *step_first + (end - 1) % matrix->cols / matrix->block_cols + 1;
        *step_first += first % matrix->cols / matrix->block_cols;
    }
}

/* Encode elements [first, end), merged to fp32 in encoder.middle. */
static int encode_piece(const struct job *job, const struct scratch *scratch,
                        const struct plan_tensor *tensor, uint64_t first, uint64_t end,
                        uint8_t *out, float whole, struct error *err)
{
    const struct quant_matrix *matrix = &tensor->encoding->same->matrix;
    const struct lane_check check = { .kind = LANE_CHECK_F16, .tensor = tensor, .index = first };
    struct device_scaled scaled = {
        .out = out,
        .src = (const float *)scratch->encoder.middle,
        .scales = scratch->encoder.values,
        .first = first,
        .count = end - first,
        .rows = matrix->rows,
        .cols = matrix->cols,
        .block_rows = matrix->block_rows,
        .block_cols = matrix->block_cols,
        .codes = matrix->codes,
        .integers = matrix->codes == QUANT_SIGNED && matrix->scale != QUANT_SCALE_ROW_127,
    };
    uint64_t step_end;

    find_steps(matrix, first, end, &scaled.scale_first, &step_end);
    if (fetch_steps(job, scratch, tensor, scaled.scale_first, step_end - scaled.scale_first, whole,
                    err) ||
        lane_scaled(scratch->lane, &scaled, &check, err))
        return err->code;
    return lane_fetch(scratch->lane, out, out, scaled.count / plan_codes_per_byte(tensor), err);
}

int same_part(const struct job *job, const struct scratch *scratch, struct slot *slot,
              const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
              struct error *err)
{
    struct plan_elements all = plan_part_elements(tensor, part);
    const struct quant_matrix *matrix = &tensor->encoding->same->matrix;
    float whole;

    if (same_whole(job, tensor, &whole, err))
        return err->code;
    for (uint64_t first = all.first; first < all.end;) {
        uint64_t end = min_u64(all.end, first + PLAN_ENCODED_ELEMENTS);
        const struct block_run run = block_run_of(slot, tensor, NULL, first);
        uint64_t step_first, step_end;

        find_steps(matrix, first, end, &step_first, &step_end);
        if (step_end - step_first > STEPS_MAX) /* of very wide rows one at a time */
            end = min_u64(end, (first / matrix->cols + 1) * matrix->cols);
        if (encode_merge(job, scratch, &run, end, err) ||
            encode_piece(job, scratch, tensor, first, end,
                         out + (first - all.first) / plan_codes_per_byte(tensor), whole, err))
            return err->code;
        first = end;
    }
    return 0;
}

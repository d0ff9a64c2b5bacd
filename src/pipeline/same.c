/*
 * same.c - codes of a base that is written back in its own scheme
 *
 * A piece is folded to fp32 and encoded row by row with the scales of its blocks,
 * which prepare_scales.c has written to the file of repacked factors.
 */
#include "compute/quant_layout.h"
#include "pipeline/internal.h"

#include <inttypes.h>

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
    return 0;
}

static int nonfinite(const struct plan_tensor *tensor, uint64_t element, struct error *err)
{
    char quoted[QUOTED_BYTES];

    return error_set(err, ERR_FORMAT,
                     "tensor '%s': element %" PRIu64 " becomes infinite in F16, through which "
                     "LLM.int8 goes; --allow-nonfinite writes it all the same",
                     error_quote(quoted, sizeof(quoted), tensor->name, tensor->name_bytes),
                     element);
}

/* Encode `count` elements from `src` on, the first of them number `element`, of blocks `steps`. */
static int encode(const struct job *job, const struct plan_tensor *tensor, uint8_t *out,
                  const float *src, uint64_t element, uint64_t count, const float *steps,
                  uint64_t block, struct error *err)
{
    const struct quant_matrix *matrix = &tensor->encoding->same->matrix;
    size_t bad;

    if (count == 0)
        return 0;
    if (matrix->codes == QUANT_SIGNED && matrix->scale != QUANT_SCALE_ROW_127) {
        encode_int8(out, src, count, steps, block);
        return 0; /* what is not finite has been found where it was folded */
    }
    bad = job->encode->scaled(out, matrix->codes, src, count, steps, block);
    return bad == FOLD_FINITE || job->allow_nonfinite ? 0 : nonfinite(tensor, element + bad, err);
}

/* Elements [first, end), all of one row and merged at `src`. */
static int encode_row(const struct job *job, const struct scratch *scratch,
                      const struct plan_tensor *tensor, uint64_t first, uint64_t end,
                      const float *src, uint8_t *out, float whole, struct error *err)
{
    const struct quant_matrix *matrix = &tensor->encoding->same->matrix;
    uint64_t down = quant_ceil(matrix->rows, matrix->block_rows);
    uint64_t across = quant_ceil(matrix->cols, matrix->block_cols);
    uint64_t row = first / matrix->cols;
    uint64_t col = first % matrix->cols;
    uint64_t col_end = col + (end - first);
    uint64_t line = row / matrix->rows * down + row % matrix->rows / matrix->block_rows;
    uint64_t block = col / matrix->block_cols;
    uint64_t cut = min_u64(col_end, (block + 1) * matrix->block_cols) - col;
    const float *steps = scratch->encoder.values;

    if (fetch_steps(job, scratch, tensor, line * across + block,
                    (col_end - 1) / matrix->block_cols - block + 1, whole, err) ||
        encode(job, tensor, out, src, first, cut, steps, matrix->block_cols, err))
        return err->code;
    return encode(job, tensor, out + cut / plan_codes_per_byte(tensor), src + cut, first + cut,
                  end - first - cut, steps + 1, matrix->block_cols, err);
}

int same_part(const struct job *job, const struct scratch *scratch, struct slot *slot,
              const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
              struct error *err)
{
    struct plan_elements all = plan_part_elements(tensor, part);
    const float *merged = (const float *)scratch->encoder.middle;
    uint64_t cols = tensor->encoding->cols;
    float whole;

    if (same_whole(job, tensor, &whole, err))
        return err->code;
    for (uint64_t first = all.first; first < all.end; first += PLAN_ENCODED_ELEMENTS) {
        uint64_t end = min_u64(all.end, first + PLAN_ENCODED_ELEMENTS);
        const struct block_run run = block_run_of(slot, tensor, NULL, first);

        if (encode_merge(job, scratch, &run, end, err))
            return err->code;
        for (uint64_t at = first; at < end;) {
            uint64_t stop = min_u64(end, (at / cols + 1) * cols);

            if (encode_row(job, scratch, tensor, at, stop, merged + (at - first),
                           out + (at - all.first) / plan_codes_per_byte(tensor), whole, err))
                return err->code;
            at = stop;
        }
    }
    return 0;
}

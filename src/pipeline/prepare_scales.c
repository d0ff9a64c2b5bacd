/*
 * prepare_scales.c - scales for what is written back in the base's own scheme
 *
 * A scale depends on all elements of its block, which may lie in many blocks of the
 * output, and its tensor may come before the codes.  So each weight that is changed is
 * merged once more, before the work, and only the largest magnitudes are kept.
 */
#include "compute/quant_layout.h"
#include "pipeline/prepare.h"

#include <stdlib.h>
#include <string.h>

/* Elements that are merged at once: their codes, a byte each, lie in encoder.codes. */
#define PIECE_ELEMENTS (PLAN_ENCODED_ELEMENTS / 2)

struct scale_work {
    struct crew *crew;
    const struct scratch *scratch;
    const struct plan_tensor *tensor;
    const struct plan_target *loaded[2]; /* whose factor A is in the region */
    float whole;
    float *amax; /* of the blocks across, plan.scale_count of them */
};

static const struct quant_matrix *matrix_of(const struct scale_work *work)
{
    return &work->tensor->encoding->same->matrix;
}

/*
 * What blocks will find in a region is not there yet.  Resident targets are larger than a piece, so
 * it needs two that follow each other at most, which have a region each.
 */
static int load_factors(struct scale_work *work, uint64_t first, uint64_t end, struct error *err)
{
    const struct plan *plan = work->crew->plan;
    const struct plan_tensor *tensor = work->tensor;
    uint64_t cols = tensor->encoding->cols;
    uint32_t last = tensor->target_first + tensor->target_count;

    for (uint32_t i = plan_find_target(plan, tensor, first / cols);
         i < last && plan->targets[i].row_first * cols < end; i++) {
        const struct plan_target *target = &plan->targets[i];
        uint32_t region = target->resident % 2;

        if (target->resident == PLAN_NO_TARGET || work->loaded[region] == target)
            continue;
        work->loaded[region] = target;
        if (factors_pack(work->crew, work->scratch, target, work->crew->regions[region].packed,
                         err))
            return err->code;
    }
    return 0;
}

/* Merge elements [first, end) of the tensor into encoder.middle. */
static int merge(struct scale_work *work, uint64_t first, uint64_t end, struct error *err)
{
    const struct scheme_part *codes = &work->tensor->encoding->same->parts[QUANT_PART_CODES];
    uint64_t per_byte = plan_codes_per_byte(work->tensor);
    struct block_run run = { .tensor = work->tensor,
                             .first = first,
                             .dtype_in = (enum dtype)work->tensor->dtype_in,
                             .dtype_out = DTYPE_F32,
                             .codes = work->scratch->encoder.codes,
                             .codes_first = first / per_byte };

    if (load_factors(work, first, end, err))
        return err->code;
    if (file_pread(&work->crew->shards[codes->shard], run.codes, (end - first) / per_byte,
                   codes->offset + run.codes_first, err))
        return err->code;
    return encode_merge(work->crew, work->scratch, &run, end, err);
}

/* Columns [col, col + count) of a row, merged at `src`, into amax. */
static void add_row(const struct scale_work *work, const float *src, uint64_t col, uint64_t count)
{
    uint64_t block_cols = matrix_of(work)->block_cols;
    uint64_t block = col / block_cols;
    float *found = work->scratch->encoder.values;

    while (count) {
        uint64_t cut = min_u64(count, (block + 1) * block_cols - col);
        uint64_t part = col % block_cols ? cut : count; /* whole blocks, and the last one */
        uint64_t blocks = quant_ceil(part, block_cols);

        work->crew->encode->absmax(found, src, part, block_cols);
        for (uint64_t i = 0; i < blocks; i++) {
            if (found[i] > work->amax[block + i])
                work->amax[block + i] = found[i];
        }
        block += blocks;
        src += part;
        col += part;
        count -= part;
    }
}

static int out_of_range(const struct scale_work *work, struct error *err)
{
    char quoted[QUOTED_BYTES];

    return error_set(err, ERR_FORMAT,
                     "tensor '%s': an element becomes larger than its global scale reaches, which "
                     "is kept; take --save-method merged_16bit",
                     error_quote(quoted, sizeof(quoted), work->tensor->name,
                                 work->tensor->name_bytes));
}

/* The scales of one row of blocks, number `line` in the tensor, from amax. */
static int write_line(const struct scale_work *work, uint64_t line, struct error *err)
{
    const struct plan_encoding *encoding = work->tensor->encoding;
    const struct scheme_part *scales = &encoding->same->parts[QUANT_PART_SCALES];
    const struct quant_matrix *matrix = matrix_of(work);
    uint64_t across = quant_ceil(matrix->cols, matrix->block_cols);
    uint64_t width = dtype_bytes(matrix->scale_dtype);
    uint8_t *raw = work->scratch->raw;

    for (uint64_t first = 0; first < across;) {
        uint64_t count = min_u64(across - first, PLAN_RAW_BYTES / width);
        uint64_t place = (line * across + first) * width;

        if (file_pread(&work->crew->shards[scales->shard], raw, count * width,
                       scales->offset + place, err))
            return err->code;
        for (uint64_t i = 0; i < count; i++) {
            if (!encode_keep(raw + i * width, raw + i * width, work->amax[first + i], matrix,
                             work->whole) &&
                !work->crew->allow_nonfinite)
                return out_of_range(work, err);
        }
        if (file_pwrite(&work->crew->repacked, raw, count * width, encoding->absmax_offset + place,
                        err))
            return err->code;
        first += count;
    }
    return 0;
}

/* Rows [row, row_end) of the matrices one behind the other, which share their blocks. */
static int scale_band(struct scale_work *work, uint64_t row, uint64_t row_end, uint64_t line,
                      const atomic_int *cancelled, struct error *err)
{
    const struct quant_matrix *matrix = matrix_of(work);
    const float *merged = (const float *)work->scratch->encoder.middle;
    uint64_t end = row_end * matrix->cols;

    memset(work->amax, 0, quant_ceil(matrix->cols, matrix->block_cols) * sizeof(*work->amax));
    for (uint64_t first = row * matrix->cols; first < end;) {
        uint64_t next = min_u64(end, first + PIECE_ELEMENTS);

        if (atomic_load(cancelled))
            return error_set(err, ERR_CANCELLED, "cancelled");
        if (merge(work, first, next, err))
            return err->code;
        for (uint64_t at = first; at < next;) {
            uint64_t stop = min_u64(next, (at / matrix->cols + 1) * matrix->cols);

            add_row(work, merged + (at - first), at % matrix->cols, stop - at);
            at = stop;
        }
        first = next;
    }
    return write_line(work, line, err);
}

static int scale_tensor(struct scale_work *work, const atomic_int *cancelled, struct error *err)
{
    const struct quant_matrix *matrix = matrix_of(work);
    uint64_t line = 0;

    if (same_whole(work->crew, work->tensor, &work->whole, err))
        return err->code;
    for (uint64_t m = 0; m < matrix->matrices; m++) {
        uint64_t begin = m * matrix->rows;

        for (uint64_t row = 0; row < matrix->rows; row += matrix->block_rows) {
            uint64_t end = min_u64(matrix->rows, row + matrix->block_rows);

            if (scale_band(work, begin + row, begin + end, line++, cancelled, err))
                return err->code;
        }
    }
    return 0;
}

int prepare_scales(struct crew *crew, const struct scratch *scratch, const atomic_int *cancelled,
                   struct error *err)
{
    const struct plan *plan = crew->plan;
    struct scale_work work = { .crew = crew, .scratch = scratch };
    int status = 0;

    if (plan->scale_count == 0)
        return 0;
    work.amax = calloc(plan->scale_count, sizeof(*work.amax));
    if (!work.amax)
        return error_no_memory(err, "the scales");
    for (size_t i = 0; i < plan->encoding_count && !status; i++) {
        work.tensor = &plan->tensors[plan->encodings[i]->tensor];
        status = scale_tensor(&work, cancelled, err);
    }
    free(work.amax);
    return status;
}

/*
 * prepare_scales.c - scales for what is written back in the base's own scheme
 *
 * A scale depends on all elements of its block, which may lie in many blocks of the
 * output, and its tensor may come before the codes.  So each weight that is changed is
 * merged once more, before the work, and only the largest magnitudes are kept.  Rows of
 * blocks are shared among the workers' places.
 */
#include "compute/quant_layout.h"
#include "pipeline/prepare.h"

#include <string.h>

/* Elements that are merged at once: their codes, a byte each, lie in encoder.codes. */
#define PIECE_ELEMENTS (PLAN_ENCODED_ELEMENTS / 2)

/* One weight, of which each thread takes the next row of blocks. */
struct scale_work {
    struct job *job;
    struct crew *crew;
    const struct plan_tensor *tensor;
    const struct plan_target *loaded[2]; /* whose factor A is in the region */
    float whole;
    uint64_t lines;
    atomic_uint_fast64_t next;
    atomic_bool failed;
    struct prepare_watch *watch;
};

static const struct quant_matrix *matrix_of(const struct scale_work *work)
{
    return &work->tensor->encoding->same->matrix;
}

/*
 * What blocks will find in a region is not there yet.  Of a tensor with two resident targets, which
 * have a region each, this is called for all of it first, and then finds them loaded.  A piece
 * needs two that follow each other at most, because they are larger than it.
 */
static int load_factors(struct scale_work *work, const struct scratch *scratch, uint64_t first,
                        uint64_t end, struct error *err)
{
    const struct plan *plan = work->job->plan;
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
        if (factors_pack(work->job, scratch, target, work->job->regions[region].packed, err))
            return err->code;
    }
    return 0;
}

/* Merge elements [first, end) of the tensor into encoder.middle. */
static int merge(struct scale_work *work, const struct scratch *scratch, uint64_t first,
                 uint64_t end, struct error *err)
{
    const struct scheme_part *codes = &work->tensor->encoding->same->parts[QUANT_PART_CODES];
    uint64_t per_byte = plan_codes_per_byte(work->tensor);
    struct block_run run = { .tensor = work->tensor,
                             .first = first,
                             .dtype_in = (enum dtype)work->tensor->dtype_in,
                             .dtype_out = DTYPE_F32,
                             .codes = scratch->encoder.codes,
                             .codes_first = first / per_byte };

    if (load_factors(work, scratch, first, end, err))
        return err->code;
    if (file_pread(&work->job->shards[codes->shard], run.codes, (end - first) / per_byte,
                   codes->offset + run.codes_first, err))
        return err->code;
    return encode_merge(work->job, scratch, &run, end, err);
}

/* Columns [col, col + count) of a row, merged at `src`, into amax. */
static void add_row(const struct scale_work *work, const struct scratch *scratch, const float *src,
                    uint64_t col, uint64_t count)
{
    uint64_t block_cols = matrix_of(work)->block_cols;
    uint64_t block = col / block_cols;
    float *found = scratch->encoder.values;
    float *amax = scratch->encoder.amax;

    while (count) {
        uint64_t cut = min_u64(count, (block + 1) * block_cols - col);
        uint64_t part = col % block_cols ? cut : count; /* whole blocks, and the last one */
        uint64_t blocks = quant_ceil(part, block_cols);

        work->job->encode->absmax(found, src, part, block_cols);
        for (uint64_t i = 0; i < blocks; i++) {
            if (found[i] > amax[block + i])
                amax[block + i] = found[i];
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

    return error_set(
        err, ERR_FORMAT,
        "tensor '%s': an element becomes larger than its global scale reaches, which "
        "is kept; take --save-method merged_16bit",
        error_quote(quoted, sizeof(quoted), work->tensor->name, work->tensor->name_bytes));
}

/* The scales of one row of blocks, number `line` in the tensor, from amax. */
static int write_line(const struct scale_work *work, const struct scratch *scratch, uint64_t line,
                      struct error *err)
{
    const struct plan_encoding *encoding = work->tensor->encoding;
    const struct scheme_part *scales = &encoding->same->parts[QUANT_PART_SCALES];
    const struct quant_matrix *matrix = matrix_of(work);
    uint64_t across = quant_ceil(matrix->cols, matrix->block_cols);
    uint64_t width = dtype_bytes(matrix->scale_dtype);
    uint8_t *raw = scratch->raw;

    for (uint64_t first = 0; first < across;) {
        uint64_t count = min_u64(across - first, PLAN_RAW_BYTES / width);
        uint64_t place = (line * across + first) * width;

        if (file_pread(&work->job->shards[scales->shard], raw, count * width,
                       scales->offset + place, err))
            return err->code;
        for (uint64_t i = 0; i < count; i++) {
            uint8_t *scale = raw + i * width;

            if (!encode_keep(scale, scale, scratch->encoder.amax[first + i], matrix, work->whole) &&
                !work->job->allow_nonfinite)
                return out_of_range(work, err);
        }
        if (file_pwrite(&work->job->repacked, raw, count * width, encoding->absmax_offset + place,
                        err))
            return err->code;
        first += count;
    }
    return 0;
}

/* Row `line` of the blocks of all matrices. */
static int scale_line(struct scale_work *work, const struct scratch *scratch, uint64_t line,
                      struct error *err)
{
    const struct quant_matrix *matrix = matrix_of(work);
    const float *merged = (const float *)scratch->encoder.middle;
    uint64_t across = quant_ceil(matrix->cols, matrix->block_cols);
    uint64_t down = quant_ceil(matrix->rows, matrix->block_rows);
    uint64_t row = line % down * matrix->block_rows;
    uint64_t row_end = min_u64(matrix->rows, row + matrix->block_rows);
    uint64_t begin = line / down * matrix->rows;
    uint64_t end = (begin + row_end) * matrix->cols;

    memset(scratch->encoder.amax, 0, across * sizeof(float));
    for (uint64_t first = (begin + row) * matrix->cols; first < end;) {
        uint64_t next = min_u64(end, first + PIECE_ELEMENTS);

        if (prepare_step(work->watch, (next - first) / plan_codes_per_byte(work->tensor), err) ||
            merge(work, scratch, first, next, err))
            return err->code;
        for (uint64_t at = first; at < next;) {
            uint64_t stop = min_u64(next, (at / matrix->cols + 1) * matrix->cols);

            add_row(work, scratch, merged + (at - first), at % matrix->cols, stop - at);
            at = stop;
        }
        first = next;
    }
    return write_line(work, scratch, line, err);
}

static int scale_lines(void *context, const struct scratch *scratch, struct error *err)
{
    struct scale_work *work = context;
    int status = 0;

    while (!status && !atomic_load(&work->failed)) {
        uint64_t line = atomic_fetch_add(&work->next, 1);

        if (line >= work->lines)
            return 0;
        status = scale_line(work, scratch, line, err);
    }
    if (status)
        atomic_store(&work->failed, true);
    return status;
}

/* More than the regions hold, and more than one thread could need at different times. */
static bool has_many_residents(const struct scale_work *work)
{
    const struct plan_tensor *tensor = work->tensor;
    unsigned residents = 0;

    for (uint32_t i = 0; i < tensor->target_count; i++)
        residents += work->job->plan->targets[tensor->target_first + i].resident != PLAN_NO_TARGET;
    return residents > 2;
}

static int scale_tensor(struct scale_work *work, const struct scratch *scratch, struct error *err)
{
    const struct quant_matrix *matrix = matrix_of(work);

    work->lines = matrix->matrices * quant_ceil(matrix->rows, matrix->block_rows);
    atomic_store(&work->next, 0);
    if (same_whole(work->job, work->tensor, &work->whole, err))
        return err->code;
    if (has_many_residents(work))
        return scale_lines(work, scratch, err);
    if (load_factors(work, scratch, 0, work->tensor->encoding->elements, err))
        return err->code;
    return crew_share(work->crew, scale_lines, work, err);
}

int prepare_scales(struct job *job, struct crew *crew, const struct scratch *scratch,
                   struct prepare_watch *watch, struct error *err)
{
    const struct plan *plan = job->plan;
    struct scale_work work = { .job = job, .crew = crew, .watch = watch };

    for (size_t i = 0; i < plan->encoding_count && plan->scale_count; i++) {
        work.tensor = &plan->tensors[plan->encodings[i]->tensor];
        if (scale_tensor(&work, scratch, err))
            return err->code;
    }
    return 0;
}

#include "pipeline/internal.h"

#include <string.h>

/* The header said that the bytes are there, so the file was changed since. */
static int fetch_failed(const struct job *job, uint32_t input, struct error *err)
{
    const char *path = input == PLAN_REPACKED ? "repacked factors" : job->plan->inputs[input].path;
    char quoted[QUOTED_BYTES];

    error_prefix(err, "'%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
    return err->code = ERR_FAILED;
}

static const struct file *file_of(const struct job *job, uint32_t input)
{
    return input == PLAN_REPACKED ? &job->repacked : &job->adapters[input - job->shard_count];
}

int factors_read(const struct job *job, const struct plan_factor *from, uint64_t skipped, void *out,
                 uint64_t bytes, struct error *err)
{
    if (file_pread(file_of(job, from->input), out, bytes, from->offset + skipped, err))
        return fetch_failed(job, from->input, err);
    return 0;
}

int factors_fetch(const struct job *job, const struct scratch *scratch,
                  const struct plan_factor *from, float *out, uint64_t count, struct error *err)
{
    uint64_t width = dtype_bytes(from->dtype);
    uint64_t skipped = 0;

    if (from->dtype == DTYPE_F32)
        return factors_read(job, from, 0, out, count * width, err);
    while (count) {
        uint64_t part = min_u64(count, PLAN_RAW_BYTES / width);

        if (factors_read(job, from, skipped, scratch->raw, part * width, err))
            return err->code;
        job->ops->decode(out, scratch->raw, from->dtype, part);
        out += part;
        skipped += part * width;
        count -= part;
    }
    return 0;
}

int factors_fetch_at(const struct job *job, const struct scratch *scratch,
                     const struct plan_factor *from, uint64_t skipped, float *out, uint64_t count,
                     struct error *err)
{
    struct plan_factor at = *from;

    at.offset += skipped * dtype_bytes(from->dtype);
    return factors_fetch(job, scratch, &at, out, count, err);
}

/* Widened rows of A go through the area of B, which nobody needs at this moment. */
static int pack_one(const struct job *job, const struct scratch *scratch,
                    const struct plan_delta *delta, uint64_t cols, float *packed, struct error *err)
{
    /* The groups of columns whose rows fit the area at once, whole rows where they fit. */
    for (uint64_t col = 0; col < cols;) {
        uint64_t part = min_u64(cols - col, PLAN_B_FLOATS);
        uint64_t rows_at_once = part == cols ? PLAN_B_FLOATS / cols : 1;

        for (uint64_t k = 0; k < delta->rank;) {
            uint64_t rows = min_u64(rows_at_once, delta->rank - k);

            if (factors_fetch_at(job, scratch, &delta->a, k * cols + col, scratch->b, rows * part,
                                 err))
                return err->code;
            for (uint64_t r = 0; r < rows; r++)
                fold_pack_row(packed + col * delta->rank, delta->rank, k + r, scratch->b + r * part,
                              part);
            k += rows;
        }
        col += part; /* PLAN_B_FLOATS is a multiple of FOLD_GROUP */
    }
    return 0;
}

int factors_pack(const struct job *job, const struct scratch *scratch,
                 const struct plan_target *target, float *packed, struct error *err)
{
    for (uint32_t i = 0; i < target->delta_count; i++) {
        const struct plan_delta *delta = &job->plan->deltas[target->delta_first + i];

        if (pack_one(job, scratch, delta, target->cols, packed, err))
            return err->code;
        packed += fold_packed_floats(delta->rank, target->cols);
    }
    return 0;
}

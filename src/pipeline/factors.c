#include "pipeline/internal.h"

#include <string.h>

/* The header said that the bytes are there, so the file was changed since. */
static int fetch_failed(const struct crew *crew, uint32_t input, struct error *err)
{
    const char *path = crew->plan->inputs[input].path;
    char quoted[QUOTED_BYTES];

    error_prefix(err, "'%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
    return err->code = ERR_FAILED;
}

int factors_fetch(const struct crew *crew, const struct scratch *scratch, uint32_t input,
                  uint64_t offset, enum dtype dtype, float *out, uint64_t count, struct error *err)
{
    const struct file *file = &crew->adapters[input - crew->shard_count];
    uint64_t width = dtype_bytes(dtype);

    while (count) {
        uint64_t part = min_u64(count, PLAN_RAW_BYTES / width);

        if (dtype == DTYPE_F32) {
            part = count;
            if (file_pread(file, out, part * width, offset, err))
                return fetch_failed(crew, input, err);
        } else {
            if (file_pread(file, scratch->raw, part * width, offset, err))
                return fetch_failed(crew, input, err);
            crew->ops->decode(out, scratch->raw, dtype, part);
        }
        out += part;
        offset += part * width;
        count -= part;
    }
    return 0;
}

/* Widened rows of A go through the area of B, which nobody needs at this moment. */
static int pack_one(const struct crew *crew, const struct scratch *scratch,
                    const struct plan_delta *delta, uint64_t cols, float *packed, struct error *err)
{
    uint64_t width = dtype_bytes(delta->a_dtype);

    /* The groups of columns whose rows fit the area at once, whole rows where they fit. */
    for (uint64_t col = 0; col < cols;) {
        uint64_t part = min_u64(cols - col, PLAN_B_FLOATS);
        uint64_t rows_at_once = part == cols ? PLAN_B_FLOATS / cols : 1;

        for (uint64_t k = 0; k < delta->rank;) {
            uint64_t rows = min_u64(rows_at_once, delta->rank - k);
            uint64_t offset = delta->a_offset + (k * cols + col) * width;

            if (factors_fetch(crew, scratch, delta->input, offset, delta->a_dtype, scratch->b,
                              rows * part, err))
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

int factors_pack(const struct crew *crew, const struct scratch *scratch,
                 const struct plan_target *target, float *packed, struct error *err)
{
    for (uint32_t i = 0; i < target->delta_count; i++) {
        const struct plan_delta *delta = &crew->plan->deltas[target->delta_first + i];

        if (pack_one(crew, scratch, delta, target->cols, packed, err))
            return err->code;
        packed += fold_packed_floats(delta->rank, target->cols);
    }
    return 0;
}

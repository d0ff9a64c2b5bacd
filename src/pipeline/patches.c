/*
 * patches.c - elements that are an adapter's: small tensors that it replaces, and
 * rows of an embedding
 */
#include "pipeline/internal.h"

#include <string.h>

/* Bytes that need no conversion go where they belong. */
static int copy_patch(const struct job *job, const struct plan_patch *patch, uint64_t begin,
                      uint64_t first, uint64_t end, uint8_t *out, struct error *err)
{
    return factors_read(job, &patch->source, first - begin, out, end - first, err);
}

/*
 * Converted elements come by way of the scratch, because a block boundary may cut one: `first` and
 * `end` are bytes of the tensor.
 */
static int convert_patch(const struct job *job, const struct scratch *scratch,
                         const struct plan_tensor *tensor, enum dtype dtype,
                         const struct plan_patch *patch, uint64_t first, uint64_t end, uint8_t *out,
                         struct error *err)
{
    uint64_t width = dtype_bytes(dtype);
    uint64_t element = first / width;
    uint64_t element_end = (end + width - 1) / width;

    while (element < element_end) {
        uint64_t count = min_u64(element_end - element, PLAN_B_FLOATS / 2);
        uint8_t *results = (uint8_t *)(scratch->b + PLAN_B_FLOATS / 2);
        uint64_t from = max_u64(first, element * width);
        uint64_t to = min_u64(end, (element + count) * width);
        const struct lane_check check = {
            .kind = LANE_CHECK_RESULT, .dtype = dtype, .tensor = tensor, .index = element
        };
        size_t bad;

        if (factors_fetch_at(job, scratch, &patch->source, element - patch->first, scratch->b,
                             count, err))
            return err->code;
        bad = job->ops->encode(results, dtype, scratch->b, count);
        if (bad != FOLD_FINITE && lane_look(job, &check, bad, results + bad * width, err))
            return err->code;
        memcpy(out + (from - first), results + (from - element * width), to - from);
        element += count;
    }
    return 0;
}

int patches_apply(const struct job *job, const struct scratch *scratch,
                  const struct plan_tensor *tensor, enum dtype dtype, uint64_t first, uint64_t end,
                  uint8_t *out, struct error *err)
{
    const struct plan_patch *patches = job->plan->patches + tensor->patch_first;
    uint64_t width = dtype_bytes(dtype);
    uint32_t low = 0;
    uint32_t high = tensor->patch_count;

    /* The first patch that ends behind `first`. */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if ((patches[middle].first + patches[middle].count) * width > first)
            high = middle;
        else
            low = middle + 1;
    }
    for (; low < tensor->patch_count && patches[low].first * width < end; low++) {
        const struct plan_patch *patch = &patches[low];
        uint64_t begin = patch->first * width;
        uint64_t from = max_u64(first, begin);
        uint64_t to = min_u64(end, begin + patch->count * width);
        int status;

        if (patch->source.dtype == dtype)
            status = copy_patch(job, patch, begin, from, to, out + (from - first), err);
        else
            status = convert_patch(job, scratch, tensor, dtype, patch, from, to,
                                   out + (from - first), err);
        if (status)
            return status;
    }
    return 0;
}

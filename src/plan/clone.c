#include "plan/plan_internal.h"

#include "base/array.h"

#include <stdlib.h>

/* Are the bytes of this block those that one input holds at the same place in its pages? */
static bool is_untouched(const struct plan *plan, const struct plan_block *block)
{
    const struct plan_input *input;
    uint64_t in_end;

    if (!block->in_place || block->offset < plan->files[block->file].data_start)
        return false;
    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[block->tensor_first + i];

        if (tensor->out_bytes && (tensor->action != PLAN_COPY || tensor->patch_count))
            return false;
    }
    input = &plan->inputs[block->reads[0].input];
    in_end = block->reads[0].offset + block->bytes;
    /* Part of a page can be cloned only as the end of both files. */
    return block->bytes % PAGE_BYTES == 0 || in_end == input->identity.bytes;
}

/* A run of its own, or the newest run goes on. */
static int add_block(struct plan *plan, const struct plan_block *block, uint64_t index,
                     size_t *capacity, struct error *err)
{
    struct plan_file *file = &plan->files[block->file];
    struct plan_clone *last = file->clone_count ? &plan->clones[plan->clone_count - 1] : NULL;
    const struct plan_read *read = &block->reads[0];
    struct plan_clone *more;

    plan->bytes_cloned += block->bytes;
    plan->blocks_cloned++;
    if (last && last->block_first + last->block_count == index && last->input == read->input &&
        last->in_offset + last->bytes == read->offset) {
        last->block_count++;
        last->bytes += block->bytes;
        return 0;
    }
    more = array_next(plan->clones, plan->clone_count, capacity, sizeof(*more));
    if (!more)
        return error_no_memory(err, "the runs that are cloned");
    plan->clones = more;
    if (file->clone_count++ == 0)
        file->clone_first = plan->clone_count;
    plan->clones[plan->clone_count++] = (struct plan_clone){ .input = read->input,
                                                             .block_first = index,
                                                             .block_count = 1,
                                                             .offset = block->offset,
                                                             .in_offset = read->offset,
                                                             .bytes = block->bytes };
    return 0;
}

int plan_find_clones(struct plan *plan, const bool *shareable, struct error *err)
{
    size_t capacity = 0;

    for (uint32_t f = 0; f < plan->file_count; f++) {
        for (uint64_t i = 0; i < plan->files[f].block_count; i++) {
            struct plan_block block;

            plan_block(plan, f, i, &block);
            if (is_untouched(plan, &block) && block.reads[0].input < plan->shard_count &&
                shareable[block.reads[0].input] && add_block(plan, &block, i, &capacity, err))
                return err->code;
        }
    }
    return 0;
}

/* alike.c - blocks of several outputs that are made of the base alone, and will be the same bytes
 */
#include "plan/plan_internal.h"

/* Is a tensor the base's, as it is or converted?  What lies between edits is not looked for. */
static bool is_of_base(const struct plan *plan, const struct plan_tensor *tensor)
{
    if (tensor->input >= plan->shard_count || tensor->patch_count || tensor->target_count)
        return false;
    return tensor->action == PLAN_COPY || tensor->action == PLAN_CONVERT ||
           (tensor->action == PLAN_ENCODE && !tensor->encoding->same);
}

bool plan_block_is_of_base(const struct plan *plan, const struct plan_block *block)
{
    if (plan->torch || /* between its tensors is what is its own */
        block->offset < plan->files[block->file].data_start)
        return false;
    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[block->tensor_first + i];
        struct plan_part part = plan_block_part(block, tensor);

        if (part.first < part.end && !is_of_base(plan, tensor))
            return false;
    }
    return true;
}

/* The next tensor from *at on that has bytes in the block; NULL: none. */
static const struct plan_tensor *next_tensor(const struct plan *plan,
                                             const struct plan_block *block, uint64_t *at,
                                             struct plan_part *part)
{
    while (*at < block->tensor_count) {
        const struct plan_tensor *tensor = &plan->tensors[block->tensor_first + (*at)++];

        *part = plan_block_part(block, tensor);
        if (part->first < part->end)
            return tensor;
    }
    return NULL;
}

static bool encoded_alike(const struct plan_encoding *x, const struct plan_encoding *y)
{
    return x == y || (x && y && x->codes == y->codes && x->middle == y->middle);
}

static bool made_alike(const struct plan_tensor *x, const struct plan_tensor *y)
{
    return x->input == y->input && x->in_offset == y->in_offset && x->quant == y->quant &&
           x->roundtrip == y->roundtrip && x->dtype_in == y->dtype_in &&
           x->dtype_out == y->dtype_out && encoded_alike(x->encoding, y->encoding);
}

bool plan_blocks_are_alike(const struct plan *x_plan, const struct plan_block *x,
                           const struct plan *y_plan, const struct plan_block *y)
{
    uint64_t x_at = 0, y_at = 0;

    if (x->bytes != y->bytes)
        return false;
    for (;;) {
        struct plan_part x_part = { 0 }, y_part = { 0 };
        const struct plan_tensor *x_tensor = next_tensor(x_plan, x, &x_at, &x_part);
        const struct plan_tensor *y_tensor = next_tensor(y_plan, y, &y_at, &y_part);

        if (!x_tensor || !y_tensor)
            return x_tensor == y_tensor;
        if (!made_alike(x_tensor, y_tensor) || x_part.first != y_part.first ||
            x_part.end != y_part.end)
            return false;
    }
}

/*
 * ready.c - what blocks wait for: resident factors, the codes that companions are made from, and
 * the checksums that stand behind tensors in files of torch
 */
#include "pipeline/control.h"

void ready_load(struct control *control, struct output *output)
{
    const struct plan *plan = output->order->plan;

    while (output->next_resident < plan->resident_count) {
        uint32_t resident = output->next_resident;
        struct region *region = &output->job.regions[resident % 2];
        const struct plan_target *target = &plan->targets[plan->residents[resident]];
        uint64_t first, last;

        if (region->resident != PLAN_NO_TARGET)
            return;
        plan_target_blocks(plan, target, &first, &last);
        region->resident = resident;
        region->ready = false;
        region->blocks_left = last - first + 1;
        crew_give_region(&control->crew, region);
        control->tasks++;
        output->busy++;
        output->next_resident++;
    }
}

/* Are there all codes whose companions the block holds? */
static bool codes_ready(const struct output *output, const struct plan_block *block)
{
    const struct plan_tensor *tensors = output->order->plan->tensors;

    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &tensors[block->tensor_first + i];

        if (tensor->action == PLAN_COMPANION && !tensor->encoding->same &&
            output->codes_left[tensor->encoding->number])
            return false;
    }
    return true;
}

static bool factors_ready(const struct output *output, const struct plan_block *block)
{
    for (uint32_t i = 0; i < block->resident_count; i++) {
        const struct region *region = &output->job.regions[(block->resident_first + i) % 2];

        if (region->resident != block->resident_first + i || !region->ready)
            return false;
    }
    return true;
}

static bool checksums_ready(const struct output *output, const struct plan_block *block)
{
    struct plan_span span = plan_block_checksums(output->order->plan, block);

    for (uint64_t i = span.first; i < span.end; i++) {
        if (output->blocks_left[i])
            return false;
    }
    return true;
}

bool ready_step(const struct output *output, const struct plan_block *block, enum block_step step)
{
    switch (step) {
    case BLOCK_TENSORS:
        return factors_ready(output, block);
    case BLOCK_COMPANIONS:
        return codes_ready(output, block);
    case BLOCK_SEAL:
        return checksums_ready(output, block);
    }
    return false;
}

void ready_summed(struct output *output, const struct plan_block *block)
{
    for (uint64_t i = block->tensor_first; i < block->tensor_first + block->tensor_count; i++) {
        struct plan_part part = plan_block_part(block, &output->order->plan->tensors[i]);

        if (part.first < part.end)
            output->blocks_left[i]--;
    }
}

static void count_codes(struct output *output, const struct plan_block *block)
{
    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &output->order->plan->tensors[block->tensor_first + i];
        struct plan_part part = plan_block_part(block, tensor);

        if (tensor->action == PLAN_ENCODE && part.first < part.end)
            output->codes_left[tensor->encoding->number]--;
    }
}

void ready_computed(struct control *control, struct output *output, const struct plan_block *block)
{
    for (uint32_t i = 0; i < block->resident_count; i++) {
        struct region *region = &output->job.regions[(block->resident_first + i) % 2];

        if (--region->blocks_left == 0)
            region->resident = PLAN_NO_TARGET;
    }
    if (!control_gave_up(control, output))
        ready_load(control, output);
    if (output->codes_left)
        count_codes(output, block);
}

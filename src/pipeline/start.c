/*
 * start.c - the next block of an output goes into a free slot
 *
 * Where there are several outputs, the base comes through windows, and a block of the base
 * alone, as it is or converted, is made once for all outputs that have it next.
 */
#include "pipeline/control.h"

static bool is_of_base(const struct output *output, const struct plan_block *block)
{
    return output->order->shares_base && plan_block_is_of_base(output->order->plan, block);
}

/* What is not finite is an error of one output and none of another that allows it. */
static bool are_alike(const struct output *x, const struct plan_block *x_block,
                      const struct output *y, const struct plan_block *y_block)
{
    return x->job.allow_nonfinite == y->job.allow_nonfinite &&
           plan_blocks_are_alike(x->order->plan, x_block, y->order->plan, y_block);
}

static void add_destination(struct control *control, struct slot *slot, struct output *output,
                            const struct plan_block *block)
{
    slot->destinations[slot->destination_count++] = (struct destination){
        .slot = slot,
        .output = output,
        .file = block->file,
        .number = block->number,
        .offset = block->offset,
        .bytes = block->bytes,
    };
    output->busy++;
    output_advance(control, output);
}

/* The other outputs that have the same bytes next. */
static void add_others(struct control *control, struct slot *slot, const struct output *first)
{
    for (size_t i = 0; i < control->output_count; i++) {
        struct output *output = &control->outputs[i];
        struct error err = { 0 };
        struct plan_block block;

        if (output == first || !output_has_blocks(output) ||
            slot->destination_count == CONTROL_DESTINATIONS_MAX)
            continue;
        output_next_block(output, &block);
        if (!is_of_base(output, &block) || !are_alike(first, &slot->block, output, &block))
            continue;
        if (control_open_output(control, output, block.file, &err)) {
            control_fail(control, output, &err);
            output_check(control, output);
            continue;
        }
        add_destination(control, slot, output, &block);
    }
}

static void submit_reads(struct control *control, struct slot *slot)
{
    const struct output *output = slot->job->output;

    for (uint32_t i = 0; i < slot->block.read_count; i++) {
        const struct plan_read *read = &slot->block.reads[i];

        if (read->by_worker || !control_reads_itself(slot, read))
            continue;
        slot->reads_left++;
        slot->reads[i] = (struct ring_request){ .operation = RING_READ,
                                                .file = &output->inputs[read->input].file,
                                                .memory = slot->memory + read->position,
                                                .bytes = read->bytes,
                                                .bytes_needed = read->needed,
                                                .offset = read->offset,
                                                .user = slot };
        control_submit(control, &slot->reads[i]);
    }
}

static int submit_windows(struct control *control, struct slot *slot, struct error *err)
{
    for (unsigned i = 0; i < slot->window_count; i++) {
        struct window *window = slot->windows[i];

        if (window->loaded)
            continue;
        if (!window->request.file) {
            if (windows_load(&control->windows, window, err))
                return err->code;
            control_submit(control, &window->request);
        }
        slot->reads_left++;
    }
    return 0;
}

/* Start the next block of an output; false: it waits for windows. */
static bool start_block(struct control *control, struct output *output, struct slot *slot)
{
    struct error err = { 0 };
    enum windows_answer answer = WINDOWS_TOO_FEW;

    slot->job = &output->job;
    output_next_block(output, &slot->block);
    if (control->windows.count)
        answer = windows_take(&control->windows, slot);
    if (answer == WINDOWS_BUSY)
        return false;
    slot->windowed = answer == WINDOWS_TAKEN;
    slot->step = BLOCK_TENSORS;
    slot->reads_left = 0;
    slot->destination_count = 0;
    if (control_open_output(control, output, slot->block.file, &err) ||
        control_open_inputs(control, output, slot, &err)) {
        windows_give_back(slot);
        control_fail(control, output, &err);
        output_check(control, output);
        return true;
    }
    control_enter(control, slot, SLOT_READING);
    add_destination(control, slot, output, &slot->block);
    slot->turn = output->turn;
    if (control->output_count > 1 && is_of_base(output, &slot->block))
        add_others(control, slot, output);
    submit_reads(control, slot);
    decode_expect(slot->job, &slot->block);
    if (submit_windows(control, slot, &err))
        control_fail(control, NULL, &err);
    if (slot->reads_left == 0) /* a header, or what workers read themselves */
        control_reads_finished(control, slot);
    return true;
}

/*
 * Half of the slots read at most.  All of them would be read at once after they were written at
 * once, then computed while the disk has nothing to do, and stay in step: disks that answer many
 * requests together (virtio) keep them so (docs/BENCHMARKS.md).
 */
static bool may_read(const struct control *control)
{
    unsigned reading = 0;

    for (unsigned i = 0; i < control->slot_count; i++)
        reading += control->slots[i].state == SLOT_READING;
    return reading < (control->slot_count + 1) / 2;
}

void start_blocks(struct control *control)
{
    for (unsigned i = 0; i < control->slot_count;) {
        struct output *output;

        if (control->slots[i].state != SLOT_FREE) {
            i++;
            continue;
        }
        if (control->failed || control->syncs >= CONTROL_SYNCS_MAX || !may_read(control))
            return;
        output = output_next(control);
        if (!output || !start_block(control, output, &control->slots[i]))
            return;
    }
}

/*
 * share.c - blocks that several outputs have alike
 *
 * They are made once, and what companions will be made from goes to each output's file of
 * repacked factors.  Where the file system can do that they are written to the file of one output
 * and cloned into the others, by a worker, because a clone waits for what is being written to both
 * files.  The slot keeps the bytes until then: what cannot be cloned is written after all.
 */
#include "pipeline/control.h"

#include "io/clone.h"

#include <inttypes.h>
#include <string.h>

/* The next tensor from *at on of which the block holds codes; NULL: none. */
static const struct plan_tensor *next_codes(const struct plan *plan, const struct plan_block *block,
                                            uint64_t *at)
{
    while (*at < block->tensor_count) {
        const struct plan_tensor *tensor = &plan->tensors[block->tensor_first + (*at)++];
        struct plan_part part = plan_block_part(block, tensor);

        if (tensor->action == PLAN_ENCODE && part.first < part.end)
            return tensor;
    }
    return NULL;
}

static int copy_absmax(const struct scratch *scratch, const struct job *from,
                       const struct plan_tensor *tensor, const struct job *to,
                       const struct plan_tensor *other, struct plan_part part, struct error *err)
{
    struct plan_elements elements = plan_part_elements(tensor, part);
    uint64_t at = elements.first / PLAN_ENCODING_BLOCK * sizeof(float);
    uint64_t end = align_up(elements.end, PLAN_ENCODING_BLOCK) / PLAN_ENCODING_BLOCK *
                   sizeof(float);

    while (at < end) {
        uint64_t bytes = min_u64(end - at, PLAN_ENCODED_ELEMENTS * sizeof(float));

        if (file_pread(&from->repacked, scratch->encoder.values, bytes,
                       tensor->encoding->absmax_offset + at, err) ||
            file_pwrite(&to->repacked, scratch->encoder.values, bytes,
                        other->encoding->absmax_offset + at, err))
            return err->code;
        at += bytes;
    }
    return 0;
}

struct plan_block share_block_of(const struct destination *to)
{
    struct plan_block block;

    plan_block(to->output->order->plan, to->file, to->offset / PLAN_BLOCK_BYTES, &block);
    return block;
}

int share_absmax(const struct scratch *scratch, const struct slot *slot, struct error *err)
{
    const struct job *from = slot->job;

    for (unsigned i = 1; i < slot->destination_count && from->plan->encoding_count; i++) {
        const struct job *to = &slot->destinations[i].output->job;
        const struct plan_block block = share_block_of(&slot->destinations[i]);
        const struct plan_tensor *tensor;
        uint64_t at = 0, other_at = 0;

        while ((tensor = next_codes(from->plan, &slot->block, &at))) {
            const struct plan_tensor *other = next_codes(to->plan, &block, &other_at);

            if (copy_absmax(scratch, from, tensor, to, other, plan_block_part(&slot->block, tensor),
                            err))
                return err->code;
        }
    }
    return 0;
}

bool share_is_due(const struct slot *slot)
{
    for (unsigned i = 0; i < slot->destination_count; i++) {
        if (slot->destinations[i].shares)
            return true;
    }
    return false;
}

/* Where it was written; NULL: nowhere. */
static struct destination *source_of(const struct slot *slot)
{
    for (unsigned i = 0; i < slot->destination_count; i++) {
        if (slot->destinations[i].write.file)
            return &slot->destinations[i];
    }
    return NULL;
}

void share_begin(struct control *control, struct slot *slot)
{
    bool is_written = false;

    for (unsigned i = 0; i < slot->destination_count; i++) {
        struct destination *to = &slot->destinations[i];

        to->write.file = NULL;
        to->shares = false;
        if (control_gave_up(control, to->output))
            continue;
        to->shares = is_written && control->shares;
        if (!to->shares)
            control_write_to(control, to);
        is_written = true;
    }
    if (!is_written)
        control_release_slot(control, slot);
}

/* What is not to be cloned any more is written. */
static void write_rest(struct control *control, struct slot *slot)
{
    for (unsigned i = 0; i < slot->destination_count; i++) {
        struct destination *to = &slot->destinations[i];

        if (!to->shares)
            continue;
        to->shares = false;
        if (!control_gave_up(control, to->output))
            control_write_to(control, to);
    }
    if (slot->writes_left == 0)
        control_release_slot(control, slot);
}

void share_written(struct control *control, struct slot *slot)
{
    const struct destination *source = source_of(slot);

    if (!share_is_due(slot) || source->write.status) {
        write_rest(control, slot);
        return;
    }
    slot->is_shared = true;
    crew_give(&control->crew, slot);
    control->tasks++;
}

void share_block(struct slot *slot)
{
    const struct destination *source = source_of(slot);

    for (unsigned i = 0; i < slot->destination_count; i++) {
        struct destination *to = &slot->destinations[i];

        if (to->shares)
            to->status = clone_range(source->write.file->fd, source->offset,
                                     to->output->files[to->file].file.fd, to->offset,
                                     align_up(to->bytes, PAGE_BYTES), to->output->cancelled);
    }
}

static void block_shared(struct control *control, struct destination *to)
{
    const char *name = to->output->order->plan->files[to->file].name;
    struct error err = { 0 };
    char reason[128];

    if (to->status == 0) {
        to->shares = false;
        to->output->order->bytes_cloned += to->bytes;
        control_count_block(control, to);
        return;
    }
    if (to->status == ECANCELED)
        return; /* the loop sees it, too */
    if (clone_is_refused(to->status) && !to->output->order->clone_always) {
        if (control->shares)
            log_say(control->options->log, LOG_DETAIL,
                    "nothing is cloned between outputs: '%s': %s", name,
                    strerror_r(to->status, reason, sizeof(reason)));
        control->shares = false;
        return;
    }
    error_set(&err, ERR_FAILED, "cannot clone %" PRIu64 " bytes at %" PRIu64 " of '%s': %s",
              to->bytes, to->offset, name, strerror_r(to->status, reason, sizeof(reason)));
    control_fail(control, to->output, &err);
}

void share_finished(struct control *control, struct slot *slot)
{
    struct destination *source = source_of(slot);

    slot->is_shared = false;
    for (unsigned i = 0; i < slot->destination_count; i++) {
        struct destination *to = &slot->destinations[i];

        if (to->shares && !control_gave_up(control, to->output))
            block_shared(control, to);
    }
    if (!control_gave_up(control, source->output))
        control_count_block(control, source);
    write_rest(control, slot);
}

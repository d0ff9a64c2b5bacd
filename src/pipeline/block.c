#include "pipeline/internal.h"

#include <string.h>

#include <xxhash.h>

/* The widest element that is computed with. */
#define ELEMENT_BYTES_MAX 8u

/*
 * An element that a block boundary cuts: its result is made apart, and the bytes that belong to
 * this block are kept.  Such blocks are never in place, so the input is whole.
 */
static int fold_cut_element(const struct crew *crew, const struct scratch *scratch,
                            const struct block_run *whole, uint64_t skip, uint64_t bytes,
                            uint8_t *out, struct error *err)
{
    uint8_t result[ELEMENT_BYTES_MAX];
    struct block_run run = *whole;

    run.count = 1;
    run.dst = result;
    if (run_fold(crew, scratch, &run, err))
        return err->code;
    memcpy(out, result + skip, bytes);
    return 0;
}

/* Compute a part of a tensor that is converted or folded. */
static int compute_part(const struct crew *crew, const struct scratch *scratch, struct slot *slot,
                        const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
                        struct error *err)
{
    uint64_t width_in = dtype_bytes((enum dtype)tensor->dtype_in);
    uint64_t width_out = dtype_bytes((enum dtype)tensor->dtype_out);
    uint64_t first = part.first / width_out;
    uint64_t end = part.end / width_out; /* behind the last whole element */
    uint64_t skip = part.first % width_out;
    uint64_t tail = part.end % width_out;
    struct block_run run = {
        .tensor = tensor,
        .target = tensor->target == PLAN_NO_TARGET ? NULL : &crew->plan->targets[tensor->target],
        .first = first,
        .src = slot->memory + plan_block_position(&slot->block, tensor, first * width_in),
    };

    if (skip) {
        uint64_t bytes = min_u64(width_out - skip, part.end - part.first);

        if (fold_cut_element(crew, scratch, &run, skip, bytes, out, err))
            return err->code;
        if (first == end) /* the part ends in the same element */
            return 0;
        out += bytes;
        run.first++;
        run.src += width_in;
    }
    run.count = end - run.first;
    run.dst = out;
    if (run_fold(crew, scratch, &run, err))
        return err->code;
    if (tail) {
        run.first = end;
        run.src += run.count * width_in;
        return fold_cut_element(crew, scratch, &run, 0, tail, out + run.count * width_out, err);
    }
    return 0;
}

static int make_part(const struct crew *crew, const struct scratch *scratch, struct slot *slot,
                     const struct plan_tensor *tensor, struct error *err)
{
    struct plan_part part = plan_block_part(&slot->block, tensor);
    uint8_t *out = slot->memory + (tensor->out_offset + part.first - slot->block.offset);

    if (part.first == part.end)
        return 0;
    if (tensor->action != PLAN_COPY)
        return compute_part(crew, scratch, slot, tensor, part, out, err);
    if (!slot->block.in_place)
        memcpy(out, slot->memory + plan_block_position(&slot->block, tensor, part.first),
               part.end - part.first);
    return 0;
}

static void copy_header(const struct plan *plan, struct slot *slot)
{
    const struct plan_file *file = &plan->files[slot->block.file];
    const struct plan_block *block = &slot->block;

    if (block->offset < file->data_start)
        memcpy(slot->memory, plan->headers + file->header_offset + block->offset,
               min_u64(block->bytes, file->data_start - block->offset));
}

int block_compute(const struct crew *crew, const struct scratch *scratch, struct slot *slot,
                  struct error *err)
{
    const struct plan_block *block = &slot->block;
    uint64_t padded = align_up(block->bytes, PAGE_BYTES);
    XXH128_hash_t digest;

    for (uint64_t i = 0; i < block->tensor_count; i++) {
        if (make_part(crew, scratch, slot, &crew->plan->tensors[block->tensor_first + i], err))
            return err->code;
    }
    copy_header(crew->plan, slot);
    memset(slot->memory + block->bytes, 0, padded - block->bytes);
    digest = XXH3_128bits(slot->memory, block->bytes);
    crew->digests[block->number][0] = digest.low64;
    crew->digests[block->number][1] = digest.high64;
    return 0;
}

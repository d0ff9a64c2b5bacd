#include "base/checksum.h"
#include "base/clock.h"
#include "base/hash.h"
#include "pipeline/internal.h"

#include <string.h>

/*
 * An element that a block boundary cuts: its result is made apart, and the bytes that belong to
 * this block are kept.  Such blocks are never in place, so the input is whole.
 */
static int fold_cut_element(const struct job *job, const struct scratch *scratch,
                            const struct block_run *whole, uint64_t skip, uint64_t bytes,
                            uint8_t *out, struct error *err)
{
    struct block_run run = *whole;

    run.count = 1;
    run.dst = scratch->cut;
    if (run_fold(job, scratch, &run, err))
        return err->code;
    return lane_fetch(scratch->lane, out, scratch->cut + skip, bytes, err);
}

/* Where the codes of a quantised tensor are, which came with the block, or room for them. */
static void set_codes(struct block_run *run, const struct slot *slot)
{
    const struct plan_tensor *tensor = run->tensor;
    struct plan_elements elements = plan_part_elements(tensor,
                                                       plan_block_part(&slot->block, tensor));
    struct quant_reads reads[QUANT_PART_COUNT];

    if (!quant_is_strided(&tensor->quant->matrix)) {
        quant_reads_of(reads, &tensor->quant->matrix, elements.first, 1);
        run->codes_first = reads[QUANT_PART_CODES].offset;
    }
    run->codes = slot->memory + plan_block_position(&slot->block, tensor, run->codes_first);
}

struct block_run block_run_of(const struct slot *slot, const struct plan_tensor *tensor,
                              const struct plan_target *target, uint64_t first)
{
    uint64_t begin = target ? target->row_first * target->cols : 0;
    struct block_run run = { .tensor = tensor,
                             .target = target,
                             .first = first - begin,
                             .roundtrip = tensor->roundtrip,
                             .dtype_in = (enum dtype)tensor->dtype_in,
                             .dtype_out = plan_rounded_dtype(tensor) };

    if (tensor->quant)
        set_codes(&run, slot);
    else
        run.src = slot->memory +
                  plan_block_position(&slot->block, tensor, first * dtype_bytes(run.dtype_in));
    return run;
}

/*
 * What came with the block and elements [first, end) of a tensor are computed from.  Codes that
 * come in pieces are sent by whoever reads them.
 */
static int upload_input(const struct scratch *scratch, const struct slot *slot,
                        const struct plan_tensor *tensor, uint64_t first, uint64_t end,
                        struct error *err)
{
    uint64_t width = dtype_bytes((enum dtype)tensor->dtype_in);
    uint64_t begin_byte = first * width;
    uint64_t end_byte = end * width;
    const uint8_t *from_host;

    if (tensor->quant) {
        struct quant_reads from[QUANT_PART_COUNT];
        struct quant_reads to[QUANT_PART_COUNT];

        if (quant_is_strided(&tensor->quant->matrix))
            return 0;
        quant_reads_of(from, &tensor->quant->matrix, first, 1);
        quant_reads_of(to, &tensor->quant->matrix, end - 1, 1);
        begin_byte = from[QUANT_PART_CODES].offset;
        end_byte = to[QUANT_PART_CODES].offset + to[QUANT_PART_CODES].bytes;
    } else if (tensor->roundtrip) {
        uint64_t block = PLAN_ENCODING_BLOCK;

        begin_byte = align_down(first, block) * width;
        end_byte = min_u64(align_up(end, block) * width, tensor->in_bytes);
    }
    from_host = slot->memory + plan_block_position(&slot->block, tensor, begin_byte);
    if (tensor->whole) /* all of it are patches, which the next such tensor puts there too */
        return lane_send(scratch->lane, from_host, end_byte - begin_byte, err);
    return lane_upload(scratch->lane, from_host, end_byte - begin_byte, err);
}

/* Compute elements that are converted or folded, all of one target or of none. */
static int compute_part(const struct job *job, const struct scratch *scratch, struct slot *slot,
                        const struct plan_tensor *tensor, const struct plan_target *target,
                        struct plan_part part, uint8_t *out, struct error *err)
{
    uint64_t width_in = dtype_bytes((enum dtype)tensor->dtype_in);
    uint64_t width_out = dtype_bytes((enum dtype)tensor->dtype_out);
    uint64_t first = part.first / width_out;
    uint64_t end = part.end / width_out; /* behind the last whole element */
    uint64_t skip = part.first % width_out;
    uint64_t tail = part.end % width_out;
    uint64_t begin = target ? target->row_first * target->cols : 0;
    struct block_run run = block_run_of(slot, tensor, target, first);

    if (upload_input(scratch, slot, tensor, first, end + (tail ? 1 : 0), err))
        return err->code;
    if (skip) {
        uint64_t bytes = min_u64(width_out - skip, part.end - part.first);

        if (fold_cut_element(job, scratch, &run, skip, bytes, out, err))
            return err->code;
        if (first == end) /* the part ends in the same element */
            return 0;
        out += bytes;
        run.first++;
        if (run.src)
            run.src += width_in;
    }
    run.count = end - begin - run.first;
    run.dst = out;
    if (run_fold(job, scratch, &run, err) ||
        lane_fetch(scratch->lane, out, out, run.count * width_out, err))
        return err->code;
    if (tail) {
        run.first = end - begin;
        if (run.src)
            run.src += run.count * width_in;
        return fold_cut_element(job, scratch, &run, 0, tail, out + run.count * width_out, err);
    }
    return 0;
}

/*
 * Before the processor writes to the slot: input of earlier tensors may lie there that has not gone
 * to the device yet.
 */
static int settle(const struct scratch *scratch, const struct slot *slot, struct error *err)
{
    return slot->block.in_place ? 0 : lane_finish(scratch->lane, err);
}

/* What no delta changes: bytes as they are, or converted. */
static int pass_part(const struct job *job, const struct scratch *scratch, struct slot *slot,
                     const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
                     struct error *err)
{
    if (tensor->dtype_in != tensor->dtype_out || tensor->quant || tensor->roundtrip)
        return compute_part(job, scratch, slot, tensor, NULL, part, out, err);
    if (settle(scratch, slot, err))
        return err->code;
    if (!slot->block.in_place)
        memmove(out, slot->memory + plan_block_position(&slot->block, tensor, part.first),
                part.end - part.first);
    return 0;
}

/*
 * New rows count as the base's: they get its dtype, and deltas are added to them.  What is computed
 * with was read in whole elements; of an element that a block cuts a copy holds its own bytes only.
 */
static int patch_input(const struct job *job, const struct scratch *scratch, struct slot *slot,
                       const struct plan_tensor *tensor, struct plan_part part, struct error *err)
{
    enum dtype dtype = (enum dtype)tensor->dtype_in;
    uint64_t width_in = dtype_bytes(dtype);
    uint64_t width_out = dtype_bytes((enum dtype)tensor->dtype_out);

    if (tensor->action != PLAN_COPY) {
        part.first = part.first / width_out * width_in;
        part.end = (part.end + width_out - 1) / width_out * width_in;
    }
    return patches_apply(job, scratch, tensor, dtype, part.first, part.end,
                         slot->memory + plan_block_position(&slot->block, tensor, part.first), err);
}

/* A part of a tensor with targets: theirs, and what lies between. */
static int fold_part(const struct job *job, const struct scratch *scratch, struct slot *slot,
                     const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
                     struct error *err)
{
    const struct plan *plan = job->plan;
    uint64_t row_bytes = plan->targets[tensor->target_first].cols *
                         dtype_bytes((enum dtype)tensor->dtype_out);
    uint32_t next = plan_find_target(plan, tensor, part.first / row_bytes);
    uint64_t at = part.first;

    while (at < part.end) {
        bool any = next < tensor->target_first + tensor->target_count;
        const struct plan_target *target = any ? &plan->targets[next] : NULL;
        uint64_t begin = target ? target->row_first * row_bytes : part.end;
        struct plan_part piece = { at, min_u64(part.end, begin) };
        int status;

        if (at < begin) {
            status = pass_part(job, scratch, slot, tensor, piece, out + (at - part.first), err);
        } else {
            piece.end = min_u64(part.end, begin + target->rows * row_bytes);
            status = compute_part(job, scratch, slot, tensor, target, piece,
                                  out + (at - part.first), err);
            next++;
        }
        if (status)
            return status;
        at = piece.end;
    }
    return 0;
}

/* A part of the codes of a quantised output. */
static int encode_tensor(const struct job *job, const struct scratch *scratch, struct slot *slot,
                         const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
                         struct error *err)
{
    struct plan_elements elements = plan_part_elements(tensor, part);

    if (upload_input(scratch, slot, tensor, elements.first, elements.end, err))
        return err->code;
    if (tensor->encoding->same)
        return same_part(job, scratch, slot, tensor, part, out, err);
    return encode_part(job, scratch, slot, tensor, part, out, err);
}

static int make_part(const struct job *job, const struct scratch *scratch, struct slot *slot,
                     const struct plan_tensor *tensor, struct error *err)
{
    struct plan_part part = plan_block_part(&slot->block, tensor);
    uint8_t *out = slot->memory + (tensor->out_offset + part.first - slot->block.offset);

    if (part.first == part.end)
        return 0;
    slot->tensor = tensor;
    if ((tensor->action == PLAN_PATCH || tensor->action == PLAN_COMPANION) &&
        settle(scratch, slot, err))
        return err->code;
    if (tensor->action == PLAN_PATCH)
        return patches_apply(job, scratch, tensor, (enum dtype)tensor->dtype_out, part.first,
                             part.end, out, err);
    if (tensor->encoding && tensor->encoding->same && tensor->action == PLAN_COMPANION)
        return same_scales(job, tensor, part, out, err);
    if (tensor->action == PLAN_COMPANION)
        return encode_companion(job, scratch, tensor, part, out, err);
    if (tensor->action == PLAN_ENCODE)
        return encode_tensor(job, scratch, slot, tensor, part, out, err);
    if (tensor->patch_count && patch_input(job, scratch, slot, tensor, part, err))
        return err->code;
    if (tensor->action == PLAN_FOLD)
        return fold_part(job, scratch, slot, tensor, part, out, err);
    return pass_part(job, scratch, slot, tensor, part, out, err);
}

static void copy_header(const struct plan *plan, struct slot *slot)
{
    const struct plan_file *file = &plan->files[slot->block.file];
    const struct plan_block *block = &slot->block;

    if (block->offset < file->data_start)
        memcpy(slot->memory, plan->headers + file->header_offset + block->offset,
               min_u64(block->bytes, file->data_start - block->offset));
}

/* What the parts of tensors in a block add to their checksums, whichever block comes first. */
static void add_checksums(const struct job *job, const struct slot *slot)
{
    const struct plan_block *block = &slot->block;

    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &job->plan->tensors[block->tensor_first + i];
        struct plan_part part = plan_block_part(block, tensor);
        const uint8_t *at = slot->memory + (tensor->out_offset + part.first - block->offset);
        uint32_t checksum;

        if (part.first == part.end)
            continue;
        checksum = checksum_shift(checksum_bytes(at, part.end - part.first),
                                  tensor->out_bytes - part.end);
        __atomic_fetch_xor(&job->checksums[block->tensor_first + i], checksum, __ATOMIC_RELAXED);
    }
}

static bool is_made_later(const struct plan_tensor *tensor)
{
    return tensor->action == PLAN_COMPANION && !tensor->encoding->same;
}

bool block_has_companions(const struct plan *plan, const struct plan_block *block)
{
    for (uint64_t i = 0; i < block->tensor_count && plan->encoding_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[block->tensor_first + i];
        struct plan_part part = plan_block_part(block, tensor);

        if (is_made_later(tensor) && part.first < part.end)
            return true;
    }
    return false;
}

/* All tensors of a step of the block; what a device does of it is done on return. */
static int make_parts(const struct scratch *scratch, struct slot *slot, struct error *err)
{
    const struct plan_block *block = &slot->block;
    struct lane *lane = scratch->lane;
    double began = clock_seconds();
    int status = 0;

    lane_begin(lane, slot->job, slot);
    slot->tensor = NULL;
    for (uint64_t i = 0; i < block->tensor_count && !status; i++) {
        const struct plan_tensor *tensor = &slot->job->plan->tensors[block->tensor_first + i];

        if (is_made_later(tensor) == (slot->step == BLOCK_COMPANIONS))
            status = make_part(slot->job, scratch, slot, tensor, err);
    }
    if (!status)
        status = lane_finish(lane, err);
    if (status)
        lane_abandon(lane);
    trace_add(lane->trace, TRACE_COMPUTE, lane->number, block->number, began, clock_seconds());
    return status;
}

static void seal(const struct scratch *scratch, struct slot *slot)
{
    const struct job *job = slot->job;
    const struct plan_block *block = &slot->block;
    uint64_t padded = align_up(block->bytes, PAGE_BYTES);
    XXH128_hash_t digest;
    double began;

    began = clock_seconds();
    copy_header(job->plan, slot);
    if (job->checksums)
        plan_block_frame(job->plan, block, job->checksums, slot->memory);
    memset(slot->memory + block->bytes, 0, padded - block->bytes);
    digest = XXH3_128bits(slot->memory, block->bytes);
    job->digests[block->number][0] = digest.low64;
    job->digests[block->number][1] = digest.high64;
    trace_add(scratch->lane->trace, TRACE_HASH, scratch->lane->number, block->number, began,
              clock_seconds());
}

int block_compute(const struct scratch *scratch, struct slot *slot, struct error *err)
{
    const struct job *job = slot->job;

    if (slot->step != BLOCK_SEAL && make_parts(scratch, slot, err))
        return err->code;
    if (slot->step == BLOCK_TENSORS && share_absmax(scratch, slot, err))
        return err->code;
    if (slot->step == BLOCK_TENSORS && block_has_companions(job->plan, &slot->block))
        return 0;
    if (slot->step != BLOCK_SEAL && job->checksums)
        add_checksums(job, slot);
    else
        seal(scratch, slot);
    return 0;
}

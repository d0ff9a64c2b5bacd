#include "plan/plan_internal.h"

#include <string.h>

struct plan_part plan_block_part(const struct plan_block *block, const struct plan_tensor *tensor)
{
    uint64_t block_end = block->offset + block->bytes;
    uint64_t tensor_end = tensor->out_offset + tensor->out_bytes;
    uint64_t first = max_u64(block->offset, tensor->out_offset);
    uint64_t end = min_u64(block_end, tensor_end);

    if (first >= end)
        return (struct plan_part){ 0, 0 };
    return (struct plan_part){ first - tensor->out_offset, end - tensor->out_offset };
}

uint64_t plan_strided_bytes(const struct plan_tensor *tensor, uint64_t first, uint64_t end)
{
    const struct quant_matrix *matrix = &tensor->quant->matrix;
    uint64_t span = quant_span(matrix);
    uint64_t most = 0;

    /* Pieces are read for one span after the other into the same place. */
    while (first < end) {
        uint64_t next = min_u64(end, (first / span + 1) * span);
        struct quant_reads reads[QUANT_PART_COUNT];

        quant_reads_of(reads, matrix, first, next - first);
        most = max_u64(most, reads[QUANT_PART_CODES].bytes * reads[QUANT_PART_CODES].count);
        first = next;
    }
    return most;
}

struct plan_elements plan_part_elements(const struct plan_tensor *tensor, struct plan_part part)
{
    uint64_t width = dtype_bytes((enum dtype)tensor->dtype_out);

    if (tensor->roundtrip && tensor->action != PLAN_ENCODE)
        return (struct plan_elements){ align_down(part.first / width, PLAN_ENCODING_BLOCK),
                                       min_u64(align_up((part.end + width - 1) / width,
                                                        PLAN_ENCODING_BLOCK),
                                               tensor->out_bytes / width) };
    if (tensor->action == PLAN_ENCODE && tensor->encoding->same)
        return (struct plan_elements){ part.first * plan_codes_per_byte(tensor),
                                       part.end * plan_codes_per_byte(tensor) };
    if (tensor->action == PLAN_ENCODE)
        return (struct plan_elements){ align_down(2 * part.first, PLAN_ENCODING_BLOCK),
                                       min_u64(align_up(2 * part.end, PLAN_ENCODING_BLOCK),
                                               tensor->encoding->elements) };
    return (struct plan_elements){ part.first / width, (part.end + width - 1) / width };
}

/*
 * The codes of a part.  Where they lie apart it is pieces that are needed, which the worker
 * reads one behind the other: then this is their number of bytes from the start of the tensor.
 */
static struct plan_part quant_input(const struct plan_tensor *tensor, struct plan_part part)
{
    const struct quant_matrix *matrix = &tensor->quant->matrix;
    struct plan_elements elements = plan_part_elements(tensor, part);
    struct quant_reads first[QUANT_PART_COUNT], last[QUANT_PART_COUNT];
    const struct quant_reads *end = &last[QUANT_PART_CODES];

    if (elements.first == elements.end)
        return (struct plan_part){ 0, 0 };
    if (quant_is_strided(matrix))
        return (struct plan_part){ tensor->in_offset,
                                   tensor->in_offset +
                                       plan_strided_bytes(tensor, elements.first, elements.end) };
    quant_reads_of(first, matrix, elements.first, 1);
    quant_reads_of(last, matrix, elements.end - 1, 1);
    return (struct plan_part){ tensor->in_offset + first[QUANT_PART_CODES].offset,
                               tensor->in_offset + end->offset + end->bytes };
}

/* The input bytes that a part of a tensor is made of, as offsets in the input file. */
static struct plan_part part_input(const struct plan_tensor *tensor, struct plan_part part)
{
    struct plan_elements elements;
    uint64_t width;

    if (tensor->action == PLAN_COPY)
        return (struct plan_part){ tensor->in_offset + part.first, tensor->in_offset + part.end };
    if (tensor->action == PLAN_PATCH || tensor->action == PLAN_COMPANION)
        return (struct plan_part){ 0, 0 };
    if (tensor->quant)
        return quant_input(tensor, part);
    elements = plan_part_elements(tensor, part);
    width = dtype_bytes((enum dtype)tensor->dtype_in);
    return (struct plan_part){ tensor->in_offset + elements.first * width,
                               tensor->in_offset + elements.end * width };
}

/* The first tensor of the file that ends behind `offset`. */
static uint64_t find_tensor(const struct plan *plan, const struct plan_file *file, uint64_t offset)
{
    uint64_t low = file->tensor_first;
    uint64_t high = file->tensor_first + file->tensor_count;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (plan->tensors[middle].out_offset + plan->tensors[middle].out_bytes > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Does a computed part begin or end inside an element? */
static bool splits_element(const struct plan_tensor *tensor, struct plan_part part)
{
    uint64_t width;

    if (tensor->action == PLAN_COPY || tensor->action == PLAN_PATCH)
        return false;
    width = dtype_bytes((enum dtype)tensor->dtype_out);
    return part.first % width != 0 || part.end % width != 0;
}

/*
 * A block is folded in place when one window of one input, in phase with the output, holds all its
 * data at the places where the results go.
 */
static bool lies_in_place(const struct plan *plan, const struct plan_block *block)
{
    const struct plan_tensor *tensors = plan->tensors + block->tensor_first;
    const struct plan_tensor *first = NULL;

    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &tensors[i];

        if (tensor->out_bytes == 0)
            continue;
        if (tensor->quant || tensor->encoding || tensor->roundtrip ||
            tensor->in_bytes != tensor->out_bytes ||
            splits_element(tensor, plan_block_part(block, tensor)))
            return false;
        if (!first) {
            first = tensor;
            if ((tensor->in_offset - tensor->out_offset) % PAGE_BYTES != 0)
                return false;
        }
        if (tensor->input != first->input ||
            tensor->in_offset - first->in_offset != tensor->out_offset - first->out_offset)
            return false;
    }
    return first != NULL;
}

static void read_in_place(const struct plan *plan, struct plan_block *block)
{
    const struct plan_tensor *first = plan->tensors + block->tensor_first;
    const struct plan_tensor *last = first + block->tensor_count - 1;
    uint64_t page, end;
    uint64_t shift; /* modulo 2^64: the input may lie before or behind */

    while (first->out_bytes == 0)
        first++;
    while (last->out_bytes == 0)
        last--;
    page = align_down(max_u64(block->offset, first->out_offset), PAGE_BYTES);
    end = min_u64(block->offset + block->bytes, last->out_offset + last->out_bytes);
    shift = first->in_offset - first->out_offset;
    block->read_count = 1;
    block->reads[0] = (struct plan_read){
        .input = first->input,
        .offset = page + shift,
        .bytes = align_up(end - page, PAGE_BYTES),
        .needed = end - page,
        .position = page - block->offset,
    };
}

/*
 * What lies between two tensors that one read takes together, such as a small tensor that an
 * adapter replaces.
 */
#define GAP_BYTES_MAX (256 * KIB)

/*
 * Reads one behind the other, as if the slot began with them; false if there would be more than
 * PLAN_READS_MAX.
 */
static bool list_reads(const struct plan *plan, struct plan_block *block)
{
    uint64_t position = 0;
    struct plan_read *read = NULL;

    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[block->tensor_first + i];
        struct plan_part part = plan_block_part(block, tensor);
        struct plan_part input;
        uint64_t page;

        if (part.first == part.end || tensor->action == PLAN_PATCH ||
            tensor->action == PLAN_COMPANION)
            continue;
        input = part_input(tensor, part);
        if (tensor->whole) {
            block->room_bytes = max_u64(block->room_bytes, input.end - input.first);
            continue;
        }
        if (tensor->quant && quant_is_strided(&tensor->quant->matrix)) {
            if (block->read_count == PLAN_READS_MAX)
                return false;
            block->reads[block->read_count++] = (struct plan_read){
                .input = tensor->input,
                .offset = input.first,
                .needed = input.end - input.first,
                .bytes = align_up(input.end - input.first, PAGE_BYTES),
                .position = position,
                .by_worker = true,
                .only = tensor
            };
            position += align_up(input.end - input.first, PAGE_BYTES);
            read = NULL;
            continue;
        }
        page = align_down(input.first, PAGE_BYTES);
        if (!read || read->input != tensor->input || tensor->patch_count || read->only ||
            page < read->offset || page > read->offset + read->bytes + GAP_BYTES_MAX) {
            if (block->read_count == PLAN_READS_MAX)
                return false;
            read = &block->reads[block->read_count++];
            *read = (struct plan_read){ .input = tensor->input,
                                        .offset = page,
                                        .position = position,
                                        .only = tensor->patch_count ? tensor : NULL };
        }
        read->needed = max_u64(read->needed, input.end - read->offset);
        read->bytes = align_up(read->needed, PAGE_BYTES);
        position = read->position + read->bytes;
    }
    block->room_position = position;
    return true;
}

/*
 * Are results made from the first byte to the last, each from input that is not needed again, and
 * by way of the scratch?  Other tensors are folded in tiles, straight from the slot to the slot.
 */
static bool is_sequential(const struct plan_tensor *tensor)
{
    if (tensor->quant)
        return !quant_is_strided(&tensor->quant->matrix);
    return tensor->action == PLAN_ENCODE || tensor->roundtrip;
}

/* Pieces may share a word of codes, or a block of quantisation of a tensor that goes through it. */
#define SHARED_BYTES (PLAN_ENCODING_BLOCK * sizeof(float))

/*
 * The least distance of the reads from the start of the slot at which no result of this tensor, nor
 * of those before it, goes over input that is still needed.  Input and output advance evenly, so
 * what holds of the first byte and of the last holds of all between.
 */
static uint64_t distance_of(const struct plan_block *block, const struct plan_tensor *tensor)
{
    struct plan_part part = plan_block_part(block, tensor);
    struct plan_part input = part_input(tensor, part);
    uint64_t begin = tensor->out_offset + part.first - block->offset;
    uint64_t end = begin + (part.end - part.first);
    uint64_t from = plan_block_position(block, tensor, input.first - tensor->in_offset);
    uint64_t to = from + (input.end - input.first);

    if (tensor->action == PLAN_COPY) /* moved as a whole */
        return begin > from ? begin - from : 0;
    if (!is_sequential(tensor))
        return end > from ? end - from : 0;
    begin += SHARED_BYTES;
    end += SHARED_BYTES;
    return max_u64(begin > from ? begin - from : 0, end > to ? end - to : 0);
}

/* Reads as near to the start of the slot as they may be; false: too many. */
static bool read_behind(const struct plan *plan, struct plan_block *block)
{
    uint64_t distance = 0;

    if (!list_reads(plan, block))
        return false;
    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[block->tensor_first + i];
        struct plan_part part = plan_block_part(block, tensor);

        if (part.first == part.end || tensor->action == PLAN_PATCH ||
            tensor->action == PLAN_COMPANION)
            continue;
        if (tensor->whole)
            distance = PLAN_BLOCK_BYTES;
        else
            distance = max_u64(distance, distance_of(block, tensor));
    }
    distance = align_up(distance, PAGE_BYTES);
    for (uint32_t i = 0; i < block->read_count; i++)
        block->reads[i].position += distance;
    block->room_position += distance;
    return true;
}

void plan_target_blocks(const struct plan *plan, const struct plan_target *target, uint64_t *first,
                        uint64_t *last)
{
    const struct plan_tensor *tensor = &plan->tensors[target->tensor];
    uint64_t begin = target->row_first * target->cols;
    uint64_t end = begin + target->rows * target->cols;

    if (tensor->action == PLAN_ENCODE && tensor->encoding->same) {
        begin /= plan_codes_per_byte(tensor);
        end /= plan_codes_per_byte(tensor);
    } else if (tensor->action == PLAN_ENCODE) {
        /* The other way round than plan_part_elements(). */
        begin = align_down(begin, PLAN_ENCODING_BLOCK) / 2;
        end = min_u64(align_up(end, PLAN_ENCODING_BLOCK) / 2, tensor->out_bytes);
    } else {
        begin *= dtype_bytes((enum dtype)tensor->dtype_out);
        end *= dtype_bytes((enum dtype)tensor->dtype_out);
    }
    *first = (tensor->out_offset + begin) / PLAN_BLOCK_BYTES;
    *last = (tensor->out_offset + end - 1) / PLAN_BLOCK_BYTES;
}

uint32_t plan_find_target(const struct plan *plan, const struct plan_tensor *tensor, uint64_t row)
{
    uint32_t low = tensor->target_first;
    uint32_t high = low + tensor->target_count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (plan->targets[middle].row_first + plan->targets[middle].rows > row)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The resident targets of a tensor that have bytes in the block: they span three blocks or more. */
static void note_residents(const struct plan *plan, struct plan_block *block,
                           const struct plan_tensor *tensor)
{
    struct plan_part part = plan_block_part(block, tensor);
    struct plan_elements elements;
    uint64_t cols, target_end;
    uint32_t i;

    if (tensor->target_count == 0 || part.first == part.end)
        return;
    elements = plan_part_elements(tensor, part);
    target_end = tensor->target_first + tensor->target_count;
    cols = plan->targets[tensor->target_first].cols;
    for (i = plan_find_target(plan, tensor, elements.first / cols);
         i < target_end && plan->targets[i].row_first * cols < elements.end; i++) {
        if (plan->targets[i].resident == PLAN_NO_TARGET)
            continue;
        if (block->resident_count == 0)
            block->resident_first = plan->targets[i].resident;
        block->resident_count++;
    }
}

static bool make_block(const struct plan *plan, uint32_t file_index, uint64_t index,
                       struct plan_block *block)
{
    const struct plan_file *file = &plan->files[file_index];
    uint64_t file_tensor_end = file->tensor_first + file->tensor_count;
    uint64_t end;

    memset(block, 0, sizeof(*block));
    block->file = file_index;
    block->number = file->block_first + index;
    block->offset = index * PLAN_BLOCK_BYTES;
    block->bytes = min_u64(PLAN_BLOCK_BYTES, file->bytes - block->offset);
    block->tensor_first = find_tensor(plan, file, block->offset);
    end = block->tensor_first;
    while (end < file_tensor_end && plan->tensors[end].out_offset < block->offset + block->bytes) {
        if (plan->resident_count)
            note_residents(plan, block, &plan->tensors[end]);
        end++;
    }
    block->tensor_count = end - block->tensor_first;
    block->in_place = lies_in_place(plan, block);
    if (block->in_place) {
        read_in_place(plan, block);
        return true;
    }
    return read_behind(plan, block);
}

void plan_block(const struct plan *plan, uint32_t file, uint64_t index, struct plan_block *out)
{
    (void)make_block(plan, file, index, out); /* plan_count_blocks() has seen that it can be made */
}

uint64_t plan_block_position(const struct plan_block *block, const struct plan_tensor *tensor,
                             uint64_t in_offset)
{
    uint64_t offset = tensor->in_offset + in_offset;
    struct plan_part input = part_input(tensor, plan_block_part(block, tensor));

    if (tensor->whole && !block->in_place)
        return block->room_position + (offset - input.first);
    /* Reads of one input may share a page: the right one holds all that the block has of it. */
    for (uint32_t i = 0; i < block->read_count; i++) {
        const struct plan_read *read = &block->reads[i];

        if (read->input == tensor->input && input.first >= read->offset &&
            input.end <= read->offset + read->needed &&
            (block->in_place ||
             read->only == (tensor->patch_count || read->by_worker ? tensor : NULL)))
            return read->position + (offset - read->offset);
    }
    return 0; /* nothing is read for an empty part */
}

/* Where what is read into a slot ends. */
static uint64_t end_of_inputs(const struct plan_block *block)
{
    uint64_t end = block->room_position + align_up(block->room_bytes, PAGE_BYTES);

    for (uint32_t i = 0; i < block->read_count; i++)
        end = max_u64(end, block->reads[i].position + block->reads[i].bytes);
    return end;
}

int plan_count_blocks(struct plan *plan, struct error *err)
{
    plan->in_place_blocks = 0;
    plan->in_bytes_max = 0;
    plan->slot_bytes = PLAN_BLOCK_BYTES;
    for (uint32_t f = 0; f < plan->file_count; f++) {
        for (uint64_t i = 0; i < plan->files[f].block_count; i++) {
            struct plan_block block;
            uint64_t in_bytes = 0;

            if (!make_block(plan, f, i, &block))
                return error_set(err, ERR_FORMAT,
                                 "block %llu of '%s' needs more than %u reads, because adapters "
                                 "replace rows of so many small tensors that lie near each other "
                                 "in the base, or bring copies of them beside factors",
                                 (unsigned long long)i, plan->files[f].name, PLAN_READS_MAX);
            plan->in_place_blocks += block.in_place;
            for (uint32_t r = 0; r < block.read_count && !block.in_place; r++)
                in_bytes += block.reads[r].bytes;
            in_bytes += align_up(block.room_bytes, PAGE_BYTES);
            plan->in_bytes_max = max_u64(plan->in_bytes_max, in_bytes);
            plan->slot_bytes = max_u64(plan->slot_bytes, end_of_inputs(&block));
        }
    }
    return 0;
}

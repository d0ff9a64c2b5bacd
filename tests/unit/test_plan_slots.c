/*
 * Where a block's input lies in its slot: no result may go over what is still needed.  Files of
 * random tensors are worked through on paper, piece by piece as a worker does it: each byte of the
 * slot says which byte of an input it is, or that it is a result.
 *
 * usage: test_plan_slots [seed]
 */
#include "check.h"
#include "io_temp.h"

#include "base/bytes.h"
#include "plan/plan_internal.h"

#include <inttypes.h>
#include <string.h>

#define TENSORS_MAX 40u
#define PIECE_MAX 70000u
#define KINDS_MAX 3u
#define RESULT 0u
#define POISON 255u

struct paper {
    struct plan plan;
    struct plan_file file;
    struct plan_input inputs[2];
    struct plan_tensor tensors[TENSORS_MAX];
    struct scheme_tensor schemes[TENSORS_MAX];
    struct plan_encoding encodings[TENSORS_MAX];
    uint64_t next_in[2];       /* where the next tensor of an input begins */
    uint64_t kinds[KINDS_MAX]; /* of the tensors of a file: one that is read far off hides others */
    size_t kind_count;
    bool even; /* one input, and dtypes are kept: all tensors leave the same room */
    uint64_t rng;
    uint8_t *slot;
};

static uint64_t pick(struct paper *paper, uint64_t low, uint64_t high)
{
    return low + temp_random(&paper->rng) % (high - low + 1);
}

/* ---- files of random tensors ---- */

static const enum dtype widths[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };

static enum dtype any_dtype(struct paper *paper)
{
    return widths[pick(paper, 0, 2)];
}

/* Those behind the first five are strided. */
static const struct quant_matrix layouts[] = {
    { .packing = QUANT_HIGH_FLAT, .bits = 4, .codes = QUANT_NF4, .block_cols = 64 },
    { .packing = QUANT_BYTES, .bits = 8, .codes = QUANT_E4M3, .block_rows = 1, .block_cols = 64 },
    { .packing = QUANT_LOW_FIRST,
      .bits = 4,
      .codes = QUANT_E2M1,
      .block_rows = 1,
      .block_cols = 32 },
    { .packing = QUANT_WORDS,
      .bits = 3,
      .codes = QUANT_UNSIGNED,
      .block_rows = 1,
      .block_cols = 32 },
    { .packing = QUANT_WORDS,
      .bits = 4,
      .codes = QUANT_UNSIGNED,
      .block_rows = 1,
      .block_cols = 32 },
    { .packing = QUANT_WORDS_DOWN,
      .bits = 4,
      .codes = QUANT_UNSIGNED,
      .block_rows = 1,
      .block_cols = 32,
      .transposed = true },
    { .packing = QUANT_BANDS,
      .bits = 4,
      .codes = QUANT_UNSIGNED,
      .block_rows = 1,
      .block_cols = 32 },
    { .packing = QUANT_BYTES,
      .bits = 8,
      .codes = QUANT_E4M3,
      .block_rows = 1,
      .block_cols = 64,
      .transposed = true },
};

static const struct scheme_tensor *any_scheme(struct paper *paper, size_t number, uint64_t rows,
                                              uint64_t cols)
{
    struct scheme_tensor *scheme = &paper->schemes[number];
    size_t layout = pick(paper, 0, sizeof(layouts) / sizeof(layouts[0]) - 1);

    *scheme = (struct scheme_tensor){ .matrix = layouts[layout] };
    scheme->matrix.matrices = 1;
    scheme->matrix.rows = rows;
    scheme->matrix.cols = cols;
    scheme->matrix.scale_dtype = DTYPE_F32;
    scheme->matrix.zeros = QUANT_ZEROS_NONE;
    return scheme;
}

/* As bytes from the start of the first piece, wherever those of another range end. */
static uint64_t code_bytes(const struct scheme_tensor *scheme, uint64_t elements)
{
    struct quant_reads reads[QUANT_PART_COUNT];

    quant_reads_of(reads, &scheme->matrix, 0, elements);
    return reads[0].offset + (reads[0].count - 1) * reads[0].stride + reads[0].bytes;
}

static void make_tensor(struct paper *paper, size_t number, uint64_t *out_offset)
{
    struct plan_tensor *tensor = &paper->tensors[number];
    bool large = pick(paper, 0, 15) == 0;
    uint64_t cols = pick(paper, 1, large ? 9000 : 300);
    uint64_t rows = pick(paper, 1, large ? 500 : 30);
    uint64_t elements = rows * cols;
    uint32_t input = paper->even ? 0 : (uint32_t)pick(paper, 0, 3) / 3;

    *tensor = (struct plan_tensor){ .input = input,
                                    .action = PLAN_FOLD,
                                    .dtype_in = (uint8_t)any_dtype(paper),
                                    .dtype_out = (uint8_t)any_dtype(paper) };
    if (paper->even)
        tensor->dtype_out = tensor->dtype_in;
    tensor->in_bytes = elements * dtype_bytes(tensor->dtype_in);
    tensor->out_bytes = elements * dtype_bytes(tensor->dtype_out);
    switch (paper->kinds[pick(paper, 0, paper->kind_count - 1)]) {
    case 0:
        tensor->action = PLAN_COPY;
        tensor->in_bytes = tensor->out_bytes = elements; /* any number of bytes */
        break;
    case 1:
        tensor->action = pick(paper, 0, 1) ? PLAN_PATCH : PLAN_COMPANION;
        break;
    case 2:
        tensor->roundtrip = true;
        break;
    case 3:
        tensor->whole = true;
        break;
    case 4:
    case 5:
        tensor->action = PLAN_ENCODE;
        tensor->encoding = &paper->encodings[number];
        paper->encodings[number] = (struct plan_encoding){ .elements = elements };
        tensor->out_bytes = (elements + 1) / 2;
        if (pick(paper, 0, 1))
            break;
        /* fallthrough */
    case 6:
    case 7:
    case 8:
        tensor->quant = any_scheme(paper, number, rows, cols);
        tensor->in_bytes = code_bytes(tensor->quant, elements);
        if (tensor->encoding && tensor->quant->matrix.codes == QUANT_E4M3 && pick(paper, 0, 1)) {
            paper->encodings[number].same = tensor->quant;
            tensor->out_bytes = elements;
        }
        break;
    default:
        break;
    }
    tensor->out_offset = *out_offset;
    *out_offset += tensor->out_bytes;
    if (pick(paper, 0, 9) == 0)
        paper->next_in[input] = pick(paper, 0, 100000000);
    tensor->in_offset = paper->next_in[input] += pick(paper, 0, 3) ? 0 : pick(paper, 1, 5000);
    paper->next_in[input] += tensor->in_bytes;
}

static void make_file(struct paper *paper)
{
    uint64_t count = pick(paper, 1, TENSORS_MAX);
    uint64_t offset = pick(paper, 8, 9000);
    struct error err = { 0 };

    paper->file = (struct plan_file){ .data_start = offset, .tensor_count = count };
    /* In phase with the output as often as not: then there is no room to spare by chance. */
    paper->next_in[0] = pick(paper, 0, 1) ? offset : pick(paper, 0, 9000);
    paper->next_in[1] = pick(paper, 0, 9000);
    paper->even = pick(paper, 0, 1);
    paper->kind_count = pick(paper, 1, KINDS_MAX);
    for (size_t i = 0; i < paper->kind_count; i++)
        paper->kinds[i] = pick(paper, 0, 9);
    for (size_t i = 0; i < count; i++)
        make_tensor(paper, i, &offset);
    paper->file.bytes = offset;
    paper->file.block_count = (offset + PLAN_BLOCK_BYTES - 1) / PLAN_BLOCK_BYTES;
    paper->plan = (struct plan){ .tensors = paper->tensors,
                                 .tensor_count = count,
                                 .inputs = paper->inputs,
                                 .input_count = 2,
                                 .files = &paper->file,
                                 .file_count = 1 };
    CHECK(plan_count_blocks(&paper->plan, &err) == 0, "%s", err.text);
}

/* ---- a block on paper ---- */

/* What a byte of an input looks like in the slot. */
static uint8_t mark_of(uint32_t input, uint64_t offset)
{
    return (uint8_t)(1 + (offset * 37 + offset / 251 + input * 91) % 254);
}

static void fill(struct paper *paper, uint64_t position, uint32_t input, uint64_t offset,
                 uint64_t bytes)
{
    CHECK(position + bytes <= paper->plan.slot_bytes, "%" PRIu64, position);
    for (uint64_t i = 0; i < bytes; i++)
        paper->slot[position + i] = mark_of(input, offset + i);
}

/* Bytes [first, end) of a tensor's input are in the slot. */
static void need(const struct paper *paper, const struct plan_block *block,
                 const struct plan_tensor *tensor, uint64_t first, uint64_t end)
{
    uint64_t position = plan_block_position(block, tensor, first);

    for (uint64_t i = 0; i < end - first; i++)
        CHECK(paper->slot[position + i] == mark_of(tensor->input, tensor->in_offset + first + i),
              "block %" PRIu64 ", tensor %td, byte %" PRIu64 " of its input", block->number,
              tensor - paper->tensors, first + i);
}

static void write_results(struct paper *paper, const struct plan_block *block,
                          const struct plan_tensor *tensor, uint64_t first, uint64_t end)
{
    if (first < end)
        memset(paper->slot + (tensor->out_offset + first - block->offset), RESULT, end - first);
}

/* The input of elements [first, end), read where it lies apart, looked at where it came along. */
static void use_elements(struct paper *paper, const struct plan_block *block,
                         const struct plan_tensor *tensor, uint64_t first, uint64_t end)
{
    uint64_t width = dtype_bytes((enum dtype)tensor->dtype_in);
    struct quant_reads reads[QUANT_PART_COUNT];

    if (tensor->quant && quant_is_strided(&tensor->quant->matrix)) {
        for (uint32_t i = 0; i < block->read_count; i++) {
            const struct plan_read *read = &block->reads[i];

            if (read->only == tensor)
                fill(paper, read->position, tensor->input, read->offset, read->needed);
        }
    } else if (tensor->quant) {
        quant_reads_of(reads, &tensor->quant->matrix, first, end - first);
        need(paper, block, tensor, reads[0].offset, reads[0].offset + reads[0].bytes);
    } else if (tensor->roundtrip) {
        first = align_down(first, PLAN_ENCODING_BLOCK);
        end = min_u64(align_up(end, PLAN_ENCODING_BLOCK), tensor->in_bytes / width);
        need(paper, block, tensor, first * width, end * width);
    } else {
        need(paper, block, tensor, first * width, end * width);
    }
}

/* In tiles of any order: what does not lie in place is needed until the end. */
static void fold_in_tiles(struct paper *paper, const struct plan_block *block,
                          const struct plan_tensor *tensor, struct plan_part part)
{
    struct plan_elements elements = plan_part_elements(tensor, part);

    use_elements(paper, block, tensor, elements.first, elements.end);
    write_results(paper, block, tensor, part.first, part.end);
    if (!block->in_place)
        use_elements(paper, block, tensor, elements.first, elements.end);
}

/* In pieces of whatever number of elements, each in the bytes that the block has of it. */
static void go_through(struct paper *paper, const struct plan_block *block,
                       const struct plan_tensor *tensor, struct plan_part part)
{
    bool halves = tensor->encoding && !tensor->encoding->same;
    uint64_t width = tensor->encoding ? 1 : dtype_bytes((enum dtype)tensor->dtype_out);
    struct plan_elements elements = plan_part_elements(tensor, part);
    uint64_t small = 500;

    if (tensor->roundtrip && !tensor->encoding) /* what is read is more */
        elements = (struct plan_elements){ part.first / width, (part.end + width - 1) / width };
    if (tensor->quant && quant_is_strided(&tensor->quant->matrix))
        small = PIECE_MAX; /* each reads all of them */
    for (uint64_t first = elements.first; first < elements.end;) {
        uint64_t most = pick(paper, 0, 1) ? small : PIECE_MAX;
        uint64_t end = min_u64(elements.end, first + pick(paper, 1, most));

        if (halves)
            end = min_u64(elements.end, align_up(end, PLAN_ENCODING_BLOCK));
        use_elements(paper, block, tensor, first, end);
        if (halves)
            write_results(paper, block, tensor, max_u64(part.first, first / 2),
                          min_u64(part.end, (end + 1) / 2));
        else
            write_results(paper, block, tensor, max_u64(part.first, first * width),
                          min_u64(part.end, end * width));
        first = end;
    }
}

static void make_part(struct paper *paper, const struct plan_block *block,
                      const struct plan_tensor *tensor)
{
    struct plan_part part = plan_block_part(block, tensor);

    if (part.first == part.end)
        return;
    if (tensor->action == PLAN_COPY) {
        need(paper, block, tensor, part.first, part.end);
        write_results(paper, block, tensor, part.first, part.end);
    } else if (tensor->action == PLAN_PATCH || tensor->action == PLAN_COMPANION) {
        write_results(paper, block, tensor, part.first, part.end);
    } else if (tensor->whole) {
        fill(paper, block->room_position, tensor->input, tensor->in_offset, block->room_bytes);
        write_results(paper, block, tensor, part.first, part.end);
    } else if (tensor->quant || tensor->encoding || tensor->roundtrip) {
        go_through(paper, block, tensor, part);
    } else {
        fold_in_tiles(paper, block, tensor, part);
    }
}

static void work(struct paper *paper, const struct plan_block *block)
{
    memset(paper->slot, POISON, paper->plan.slot_bytes);
    for (uint32_t i = 0; i < block->read_count; i++) {
        const struct plan_read *read = &block->reads[i];

        CHECK(read->position % PAGE_BYTES == 0, "read %u", i);
        CHECK(read->position + read->bytes <= paper->plan.slot_bytes, "read %u", i);
        if (!read->by_worker)
            fill(paper, read->position, read->input, read->offset, read->needed);
    }
    for (uint64_t i = 0; i < block->tensor_count; i++)
        make_part(paper, block, &paper->tensors[block->tensor_first + i]);
    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &paper->tensors[block->tensor_first + i];
        struct plan_part part = plan_block_part(block, tensor);

        for (uint64_t at = part.first; at < part.end; at++)
            CHECK(paper->slot[tensor->out_offset + at - block->offset] == RESULT,
                  "block %" PRIu64 ", tensor %" PRIu64 ", byte %" PRIu64, block->number, i, at);
    }
}

int main(int argc, char **argv)
{
    uint64_t first_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    struct paper *paper = calloc(1, sizeof(*paper));
    uint64_t near = 0, blocks = 0;

    CHECK(paper, "memory");
    for (uint64_t seed = first_seed; seed < first_seed + (argc > 1 ? 1 : 250); seed++) {
        paper->rng = seed * UINT64_C(0x9e3779b97f4a7c15);
        paper->inputs[0].identity.bytes = paper->inputs[1].identity.bytes = UINT64_C(1) << 40;
        make_file(paper);
        paper->slot = malloc(paper->plan.slot_bytes);
        CHECK(paper->slot, "memory");
        for (uint64_t i = 0; i < paper->file.block_count; i++) {
            struct plan_block block;

            plan_block(&paper->plan, 0, i, &block);
            work(paper, &block);
            blocks++;
            near += !block.in_place && block.read_count && block.reads[0].position < block.bytes;
        }
        free(paper->slot);
    }
    printf("seeds from %" PRIu64 ": %" PRIu64 " blocks, input within the output's bytes in %" PRIu64
           "\n",
           first_seed, blocks, near);
    CHECK(argc > 1 || near > blocks / 4, "the interesting case is rare");
    free(paper);
    return 0;
}

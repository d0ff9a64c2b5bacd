/*
 * decode.c - runs of quantised tensors: codes and companions to fp32, then as any run
 *
 * Codes that lie in one piece come with the block.  Scales and zero points, and codes
 * that lie apart, are read here, through the page cache: they are small, or many
 * pieces of pages that the next blocks need as well.
 */
#include "pipeline/internal.h"

#include <string.h>

static int read_failed(const struct job *job, const struct scheme_part *part, struct error *err)
{
    const char *path = job->plan->inputs[part->shard].path;
    char quoted[QUOTED_BYTES];

    error_prefix(err, "'%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
    return err->code = ERR_FAILED; /* the header said that the bytes are there */
}

static int read_part(const struct job *job, const struct scheme_part *part, uint64_t offset,
                     void *out, uint64_t bytes, struct error *err)
{
    if (file_pread(&job->shards[part->shard], out, bytes, part->offset + offset, err))
        return read_failed(job, part, err);
    return 0;
}

/* Companions up to this size are fetched with the first block of their tensor, in few requests. */
#define EXPECTED_BYTES_MAX MIB

static void expect_bytes(const struct job *job, const struct scheme_part *part, uint64_t offset,
                         uint64_t bytes)
{
    file_will_need(&job->shards[part->shard], part->offset + offset, bytes);
}

static void expect_part(const struct job *job, const struct scheme_part *part,
                        const struct quant_reads *reads)
{
    if (reads->count && part->bytes > EXPECTED_BYTES_MAX)
        expect_bytes(job, part, reads->offset, (reads->count - 1) * reads->stride + reads->bytes);
}

static void expect_pieces(const struct job *job, const struct plan_tensor *tensor,
                          struct plan_elements elements)
{
    const struct quant_matrix *matrix = &tensor->quant->matrix;
    const struct scheme_part *parts = tensor->quant->parts;
    uint64_t span = quant_span(matrix);

    while (elements.first < elements.end) {
        uint64_t next = min_u64(elements.end, (elements.first / span + 1) * span);
        struct quant_reads reads[QUANT_PART_COUNT];

        quant_reads_of(reads, matrix, elements.first, next - elements.first);
        expect_part(job, &parts[QUANT_PART_SCALES], &reads[QUANT_PART_SCALES]);
        expect_part(job, &parts[QUANT_PART_ZEROS], &reads[QUANT_PART_ZEROS]);
        elements.first = next;
    }
}

static void expect_whole(const struct job *job, const struct scheme_tensor *quant)
{
    const struct scheme_part *const parts[] = { &quant->parts[QUANT_PART_SCALES],
                                                &quant->parts[QUANT_PART_ZEROS],
                                                &quant->map,
                                                &quant->nested,
                                                &quant->group_of,
                                                &quant->whole };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i]->bytes && parts[i]->bytes <= EXPECTED_BYTES_MAX)
            expect_bytes(job, parts[i], 0, parts[i]->bytes);
    }
}

void decode_expect(const struct job *job, const struct plan_block *block)
{
    for (uint64_t i = 0; i < block->tensor_count; i++) {
        const struct plan_tensor *tensor = &job->plan->tensors[block->tensor_first + i];
        struct plan_elements elements;

        if (!tensor->quant || tensor->action == PLAN_COPY || tensor->action == PLAN_COMPANION)
            continue;
        elements = plan_part_elements(tensor, plan_block_part(block, tensor));
        if (elements.first == 0)
            expect_whole(job, tensor->quant);
        expect_pieces(job, tensor, elements);
    }
}

static int read_pieces(const struct job *job, const struct scratch *scratch,
                       const struct scheme_part *part, const struct quant_reads *reads,
                       uint8_t *out, struct error *err)
{
    for (uint64_t i = 0; i < reads->count; i++) {
        if (read_part(job, part, reads->offset + i * reads->stride, out + i * reads->bytes,
                      reads->bytes, err))
            return err->code;
    }
    return lane_send(scratch->lane, out, reads->count * reads->bytes, err);
}

/* What a decoder has whole: of the tensor, and of the matrix in it. */
static int load_whole(const struct job *job, const struct scratch *scratch,
                      const struct plan_tensor *tensor, uint64_t matrix, struct error *err)
{
    struct decoder *decoder = scratch->decoder;
    const struct scheme_tensor *quant = tensor->quant;
    struct quant_whole *whole = &decoder->whole;
    char name[QUOTED_BYTES];

    if (decoder->tensor == tensor && decoder->matrix == matrix)
        return 0;
    decoder->tensor = NULL;
    *whole = (struct quant_whole){ .offset = quant->nested_offset,
                                   .nested = decoder->nested,
                                   .group_of = quant->group_of.bytes ? decoder->groups : NULL };
    if (quant->map.bytes && read_part(job, &quant->map, 0, whole->map, sizeof(whole->map), err))
        return err->code;
    if (quant->nested.bytes &&
        (read_part(job, &quant->nested, 0, decoder->nested, quant->nested.bytes, err) ||
         lane_send(scratch->lane, decoder->nested, quant->nested.bytes, err)))
        return err->code;
    if (quant->group_of.bytes &&
        (read_part(job, &quant->group_of, 0, decoder->groups, quant->group_of.bytes, err) ||
         lane_send(scratch->lane, decoder->groups, quant->group_of.bytes, err)))
        return err->code;
    if (quant->whole.bytes &&
        read_part(job, &quant->whole, matrix * sizeof(float), &whole->whole, sizeof(float), err))
        return err->code;
    if (quant_check_whole(&quant->matrix, whole, err)) {
        error_prefix(err, "tensor '%s' of the base",
                     error_quote(name, sizeof(name), tensor->name, tensor->name_bytes));
        return err->code;
    }
    decoder->tensor = tensor;
    decoder->matrix = matrix;
    return 0;
}

/* The scales and zero points that these elements need; false: more than there is room for. */
static bool companions_fit(const struct quant_reads reads[QUANT_PART_COUNT])
{
    return reads[QUANT_PART_SCALES].bytes * reads[QUANT_PART_SCALES].count <=
               PLAN_COMPANION_BYTES &&
           reads[QUANT_PART_ZEROS].bytes * reads[QUANT_PART_ZEROS].count <= PLAN_COMPANION_BYTES;
}

/* Elements from `first` on that are decoded from one reading, at most `count`, in one span. */
static uint64_t fit(const struct plan_tensor *tensor, uint64_t first, uint64_t count,
                    struct quant_reads reads[QUANT_PART_COUNT])
{
    const struct quant_matrix *matrix = &tensor->quant->matrix;
    uint64_t span = quant_span(matrix);

    count = min_u64(count, span - first % span);
    /* Where pieces are read, many rows at once; otherwise a tile, and whole rows if they fit. */
    if (!quant_is_strided(matrix)) {
        count = min_u64(count, PLAN_DECODED_FLOATS);
        if (count > matrix->cols)
            count -= (first + count) % matrix->cols;
    }
    quant_reads_of(reads, matrix, first, count);
    while (!companions_fit(reads) && count > 1) {
        uint64_t row_end = matrix->cols - first % matrix->cols;

        count = count > row_end ? max_u64(row_end, count / 2) : count / 2;
        quant_reads_of(reads, matrix, first, count);
    }
    return count;
}

/* Read what [first, first + count) needs; codes from the block if they came with it. */
static int read_source(const struct job *job, const struct scratch *scratch,
                       const struct block_run *run, uint64_t first, uint64_t count,
                       const struct quant_reads reads[QUANT_PART_COUNT],
                       struct quant_source *source, struct error *err)
{
    const struct plan_tensor *tensor = run->tensor;
    const struct scheme_part *parts = tensor->quant->parts;
    struct decoder *decoder = scratch->decoder;
    bool strided = quant_is_strided(&tensor->quant->matrix);
    const struct quant_reads *codes = &reads[QUANT_PART_CODES];

    *source = (struct quant_source){ .whole = &decoder->whole, .first = first, .count = count };
    source->parts[QUANT_PART_SCALES] = decoder->scales;
    source->parts[QUANT_PART_ZEROS] = decoder->zeros;
    if (read_pieces(job, scratch, &parts[QUANT_PART_SCALES], &reads[QUANT_PART_SCALES],
                    decoder->scales, err) ||
        read_pieces(job, scratch, &parts[QUANT_PART_ZEROS], &reads[QUANT_PART_ZEROS],
                    decoder->zeros, err))
        return err->code;
    if (strided) {
        source->parts[QUANT_PART_CODES] = run->codes;
        return read_pieces(job, scratch, &parts[QUANT_PART_CODES], codes, run->codes, err);
    }
    source->parts[QUANT_PART_CODES] = run->codes + (codes->offset - run->codes_first);
    return 0;
}

/* Decode [first, first + count) of the tensor into `out`, piece by piece through `use`. */
static int decode_pieces(const struct job *job, const struct scratch *scratch,
                         const struct block_run *run, uint64_t first, uint64_t count,
                         int (*use)(const struct job *job, const struct scratch *scratch,
                                    const struct block_run *run, uint64_t first, uint64_t count,
                                    struct error *err),
                         struct error *err)
{
    const struct quant_matrix *matrix = &run->tensor->quant->matrix;
    uint64_t in_matrix = matrix->rows * matrix->cols;

    while (count) {
        struct quant_reads reads[QUANT_PART_COUNT];
        uint64_t part = fit(run->tensor, first, count, reads);
        struct quant_source source;

        if (load_whole(job, scratch, run->tensor, first / in_matrix, err) ||
            read_source(job, scratch, run, first, part, reads, &source, err))
            return err->code;
        for (uint64_t done = 0; done < part;) {
            uint64_t piece = min_u64(part - done, PLAN_DECODED_FLOATS);
            uint64_t at = first + done;
            const struct lane_check check = { .kind = LANE_CHECK_BASE,
                                              .tensor = run->tensor,
                                              .index = at };

            if (piece > matrix->cols && done + piece < part)
                piece -= (at + piece) % matrix->cols;
            if (lane_decode_codes(scratch->lane, scratch->decoder->decoded, matrix, &source, at,
                                  piece, &check, err) ||
                use(job, scratch, run, at, piece, err))
                return err->code;
            done += piece;
        }
        first += part;
        count -= part;
    }
    return 0;
}

/* Fold what was decoded as a run of fp32. */
static int fold_decoded(const struct job *job, const struct scratch *scratch,
                        const struct block_run *run, uint64_t first, uint64_t count,
                        struct error *err)
{
    uint64_t begin = run->target ? run->target->row_first * run->target->cols : 0;
    uint64_t skipped = first - begin - run->first;
    struct block_run decoded = *run;

    decoded.dtype_in = DTYPE_F32;
    decoded.first = first - begin;
    decoded.count = count;
    decoded.src = (const uint8_t *)scratch->decoder->decoded;
    decoded.dst = run->dst + skipped * dtype_bytes(run->dtype_out);
    decoded.codes = NULL;
    return run_fold(job, scratch, &decoded, err);
}

int run_fold_quant(const struct job *job, const struct scratch *scratch,
                   const struct block_run *run, struct error *err)
{
    uint64_t begin = run->target ? run->target->row_first * run->target->cols : 0;

    return decode_pieces(job, scratch, run, begin + run->first, run->count, fold_decoded, err);
}

static int copy_decoded(const struct job *job, const struct scratch *scratch,
                        const struct block_run *run, uint64_t first, uint64_t count,
                        struct error *err)
{
    (void)job;
    (void)err;
    memcpy((float *)run->dst + (first - run->first), scratch->decoder->decoded,
           count * sizeof(float));
    return 0;
}

int decode_fetch(const struct job *job, const struct scratch *scratch,
                 const struct plan_tensor *tensor, uint64_t first, uint64_t count, float *out,
                 struct error *err)
{
    struct quant_reads reads[QUANT_PART_COUNT];
    struct block_run run = { .tensor = tensor, .first = first, .dst = (uint8_t *)out };

    while (count) {
        uint64_t part = min_u64(count, PLAN_RAW_BYTES / 8); /* at most 8 bytes of codes each */

        quant_reads_of(reads, &tensor->quant->matrix, first, 1);
        run.codes = scratch->raw;
        run.codes_first = reads[QUANT_PART_CODES].offset;
        if (!quant_is_strided(&tensor->quant->matrix)) {
            struct quant_reads last[QUANT_PART_COUNT];
            uint64_t end;

            quant_reads_of(last, &tensor->quant->matrix, first + part - 1, 1);
            end = last[QUANT_PART_CODES].offset + last[QUANT_PART_CODES].bytes;
            if (read_part(job, &tensor->quant->parts[QUANT_PART_CODES], run.codes_first,
                          scratch->raw, end - run.codes_first, err))
                return err->code;
        } else {
            /* A column of codes comes whole, however few elements of it are wanted. */
            run.codes = (uint8_t *)scratch->tile_sum;
            part = min_u64(part, tensor->quant->matrix.cols - first % tensor->quant->matrix.cols);
        }
        if (decode_pieces(job, scratch, &run, first, part, copy_decoded, err))
            return err->code;
        first += part;
        count -= part;
    }
    return 0;
}

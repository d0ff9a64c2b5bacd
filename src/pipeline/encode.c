/*
 * encode.c - codes of a quantised output, and their companions
 *
 * A piece of whole blocks is folded and rounded to 16 bits as for any output, then
 * encoded.  The absmax of all pieces go to the file of repacked factors; companions
 * are made from there when all pieces of their tensor are done, which the control
 * thread waits for.
 */
#include "compute/quant_layout.h"
#include "pipeline/internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int encode_merge(const struct job *job, const struct scratch *scratch,
                 const struct block_run *whole, uint64_t end, struct error *err)
{
    const struct plan *plan = job->plan;
    const struct plan_tensor *tensor = whole->tensor;
    uint64_t width = dtype_bytes(tensor->encoding->middle);
    uint64_t cols = tensor->encoding->cols;
    uint32_t next = plan_find_target(plan, tensor, whole->first / cols);

    for (uint64_t at = whole->first; at < end;) {
        bool any = next < tensor->target_first + tensor->target_count;
        const struct plan_target *target = any ? &plan->targets[next] : NULL;
        uint64_t begin = target ? target->row_first * cols : end;
        uint64_t stop = min_u64(end, begin);
        uint64_t done = at - whole->first;
        struct block_run run = *whole;

        if (at >= begin) {
            stop = min_u64(end, begin + target->rows * cols);
            run.target = target;
            run.first = at - begin;
            next++;
        } else {
            run.first = at;
        }
        run.count = stop - at;
        run.dst = scratch->encoder.middle + done * width;
        if (run.src)
            run.src += done * dtype_bytes(run.dtype_in);
        if (run_fold(job, scratch, &run, err))
            return err->code;
        at = stop;
    }
    return 0;
}

/* Elements from `first` on that are encoded at once: up to the end of a row if blocks end there. */
static uint64_t piece_elements(const struct plan_encoding *encoding, uint64_t first, uint64_t end)
{
    uint64_t count = min_u64(end - first, PLAN_ENCODED_ELEMENTS);
    uint64_t cut = (first + count) % encoding->cols;

    if (first + count < end && encoding->cols % PLAN_ENCODING_BLOCK == 0 && cut < count)
        count -= cut;
    return count;
}

/* Elements that stay in a processor's fastest cache between widening and encoding. */
#define CACHED_ELEMENTS 4096u

/* What was merged, into encoder.codes and encoder.absmax. */
static int encode_middle(const struct scratch *scratch, const struct plan_encoding *encoding,
                         uint64_t count, struct error *err)
{
    const struct encoder *encoder = &scratch->encoder;
    uint64_t width = dtype_bytes(encoding->middle);
    uint64_t step = lane_is_device(scratch->lane) ? count : CACHED_ELEMENTS;

    for (uint64_t at = 0; at < count; at += step) {
        const struct device_blocks blocks = { .out = encoder->codes + at / 2,
                                              .absmax = encoder->absmax + at / PLAN_ENCODING_BLOCK,
                                              .codes = encoding->codes,
                                              .src = encoder->values,
                                              .count = min_u64(count - at, step),
                                              .block = PLAN_ENCODING_BLOCK };

        /* What is not finite has been found where it was rounded, or is allowed. */
        if (lane_decode(scratch->lane, encoder->values, encoder->middle + at * width,
                        encoding->middle, 1, blocks.count, 0, err) ||
            lane_bnb4(scratch->lane, &blocks, err))
            return err->code;
    }
    return 0;
}

int encode_part(const struct job *job, const struct scratch *scratch, struct slot *slot,
                const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
                struct error *err)
{
    const struct plan_encoding *encoding = tensor->encoding;
    const struct encoder *encoder = &scratch->encoder;
    struct plan_elements elements = plan_part_elements(tensor, part);

    for (uint64_t first = elements.first; first < elements.end;) {
        uint64_t count = piece_elements(encoding, first, elements.end);
        uint64_t blocks = (count + PLAN_ENCODING_BLOCK - 1) / PLAN_ENCODING_BLOCK;
        uint64_t from = max_u64(part.first, first / 2);
        uint64_t to = min_u64(part.end, (first + count + 1) / 2);
        const struct block_run run = block_run_of(slot, tensor, NULL, first);

        if (encode_merge(job, scratch, &run, first + count, err) ||
            encode_middle(scratch, encoding, count, err) ||
            lane_fetch(scratch->lane, out + (from - part.first),
                       encoder->codes + (from - first / 2), to - from, err) ||
            lane_write(scratch->lane, &job->repacked, encoder->absmax, blocks * sizeof(float),
                       encoding->absmax_offset + first / PLAN_ENCODING_BLOCK * sizeof(float), err))
            return err->code;
        first += count;
    }
    return 0;
}

/* Absmax [first, first + count) of a tensor. */
static int read_absmax(const struct job *job, const struct plan_encoding *encoding, uint64_t first,
                       float *out, uint64_t count, struct error *err)
{
    return file_pread(&job->repacked, out, count * sizeof(float),
                      encoding->absmax_offset + first * sizeof(float), err);
}

/* As encode_nested_offset(), piece by piece. */
static int find_offset(const struct job *job, const struct scratch *scratch,
                       const struct plan_encoding *encoding, float *offset, struct error *err)
{
    double sum = 0;

    for (uint64_t first = 0; first < encoding->absmax_count; first += PLAN_ENCODED_ELEMENTS) {
        uint64_t count = min_u64(encoding->absmax_count - first, PLAN_ENCODED_ELEMENTS);

        if (read_absmax(job, encoding, first, scratch->encoder.values, count, err))
            return err->code;
        for (uint64_t i = 0; i < count; i++)
            sum += (double)scratch->encoder.values[i];
    }
    *offset = (float)sum / (float)encoding->absmax_count;
    if (!isfinite(*offset))
        return error_set(err, ERR_FORMAT,
                         "the scales of a tensor of %" PRIu64 " x %" PRIu64
                         " are too large for their mean: use --no-double-quant",
                         encoding->rows, encoding->cols);
    return 0;
}

/* Codes or numbers of nested absmax: bytes [part.first, part.end) of either. */
static int nest(const struct job *job, const struct scratch *scratch,
                const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
                struct error *err)
{
    const struct plan_encoding *encoding = tensor->encoding;
    const struct encoder *encoder = &scratch->encoder;
    bool is_codes = tensor->companion == PLAN_ABSMAX;
    uint64_t per_byte = is_codes ? 1 : ENCODE_NESTED_BLOCK / sizeof(float);
    uint64_t first = align_down(part.first * per_byte, ENCODE_NESTED_BLOCK);
    uint64_t end = min_u64(align_up(part.end * per_byte, ENCODE_NESTED_BLOCK),
                           encoding->absmax_count);
    float nested[PLAN_ENCODED_ELEMENTS / 2 / ENCODE_NESTED_BLOCK];
    float map[256];
    float offset;

    if (find_offset(job, scratch, encoding, &offset, err))
        return err->code;
    encode_dynamic_map(map);
    for (; first < end; first += PLAN_ENCODED_ELEMENTS / 2) {
        uint64_t count = min_u64(end - first, PLAN_ENCODED_ELEMENTS / 2);
        uint64_t made_first = first / per_byte; /* byte of the companion */
        uint64_t made_end = is_codes ? first + count
                                     : made_first + (count + ENCODE_NESTED_BLOCK - 1) /
                                                        ENCODE_NESTED_BLOCK * sizeof(float);
        uint64_t from = max_u64(part.first, made_first);
        uint64_t to = min_u64(part.end, made_end);
        const uint8_t *made = is_codes ? encoder->codes : (const uint8_t *)nested;

        if (read_absmax(job, encoding, first, encoder->values, count, err))
            return err->code;
        encode_nested(is_codes ? encoder->codes : NULL, nested, encoder->values, count, offset,
                      map);
        memcpy(out + (from - part.first), made + (from - made_first), to - from);
    }
    return 0;
}

/*
 * Python's repr() of a double that is not negative: the shortest digits that read back as the same
 * number, with an exponent below -4 and from 16 on.  Whatever the locale has for a point.
 */
static void print_double(char *out, size_t bytes, double value)
{
    char text[40] = "";
    char digits[20] = { 0 };
    char *mark;
    int count = 0, exponent;

    for (int precision = 0; precision <= 16; precision++) {
        snprintf(text, sizeof(text), "%.*e", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    mark = strchr(text, 'e');
    exponent = mark ? atoi(mark + 1) : 0;
    for (const char *at = text; at < mark && count < 17; at++) {
        if (*at >= '0' && *at <= '9')
            digits[count++] = *at;
    }
    if (exponent < -4 || exponent >= 16)
        snprintf(out, bytes, "%.1s%s%se%s%02d", digits, count > 1 ? "." : "", digits + 1,
                 exponent < 0 ? "-" : "+", abs(exponent));
    else if (exponent < 0)
        snprintf(out, bytes, "0.%.*d%s", -exponent - 1, 0, digits);
    else if (count <= exponent + 1)
        snprintf(out, bytes, "%s%.*d.0", digits, exponent + 1 - count, 0);
    else
        snprintf(out, bytes, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
}

static int print_state(const struct job *job, const struct scratch *scratch,
                       const struct plan_encoding *encoding, char state[PLAN_QUANT_STATE_BYTES + 1],
                       struct error *err)
{
    static const char *const dtypes[] = { "bfloat16", "float16", "float32" };
    const char *dtype = dtypes[encoding->middle == DTYPE_F32   ? 2
                               : encoding->middle == DTYPE_F16 ? 1
                                                               : 0];
    char number[40];
    float offset = 0;
    int bytes;

    bytes = snprintf(state, PLAN_QUANT_STATE_BYTES,
                     "{\"quant_type\": \"%s\", \"blocksize\": %u, \"dtype\": \"%s\", \"shape\": "
                     "[%" PRIu64 ", %" PRIu64 "]",
                     encoding->codes == QUANT_NF4 ? "nf4" : "fp4", PLAN_ENCODING_BLOCK, dtype,
                     encoding->rows, encoding->cols);
    if (encoding->nested) {
        if (find_offset(job, scratch, encoding, &offset, err))
            return err->code;
        print_double(number, sizeof(number), (double)offset);
        bytes += snprintf(state + bytes, PLAN_QUANT_STATE_BYTES - (size_t)bytes,
                          ", \"nested_blocksize\": %u, \"nested_dtype\": \"float32\", "
                          "\"nested_offset\": %s",
                          ENCODE_NESTED_BLOCK, number);
    }
    bytes += snprintf(state + bytes, PLAN_QUANT_STATE_BYTES - (size_t)bytes, "}");
    memset(state + bytes, ' ', PLAN_QUANT_STATE_BYTES - (size_t)bytes);
    return 0;
}

int encode_companion(const struct job *job, const struct scratch *scratch,
                     const struct plan_tensor *tensor, struct plan_part part, uint8_t *out,
                     struct error *err)
{
    const struct plan_encoding *encoding = tensor->encoding;
    char state[PLAN_QUANT_STATE_BYTES + 1];
    float map[256];
    const uint8_t *made = (const uint8_t *)map;

    switch ((enum plan_companion)tensor->companion) {
    case PLAN_ABSMAX:
        if (encoding->nested)
            return nest(job, scratch, tensor, part, out, err);
        return file_pread(&job->repacked, out, part.end - part.first,
                          encoding->absmax_offset + part.first, err);
    case PLAN_NESTED_ABSMAX:
        return nest(job, scratch, tensor, part, out, err);
    case PLAN_QUANT_MAP:
        memcpy(map, quant_tables[encoding->codes], 16 * sizeof(float));
        if (encoding->codes == QUANT_FP4_BNB)
            map[8] = 0.0f; /* what is stored, though it decodes to -0 */
        break;
    case PLAN_NESTED_MAP:
        encode_dynamic_map(map);
        break;
    case PLAN_QUANT_STATE:
    case PLAN_COMPANIONS:
        if (print_state(job, scratch, encoding, state, err))
            return err->code;
        made = (const uint8_t *)state;
        break;
    }
    memcpy(out, made + part.first, part.end - part.first);
    return 0;
}

/*
 * roundtrip.c - a 16-bit base as a QLoRA adapter saw it: taken through NF4
 *
 * Blocks of quantisation go through the flat tensor, so pieces begin and end with
 * whole ones, and what a run needs of a piece is folded from there.
 */
#include "pipeline/internal.h"

/* Elements [first, first + count), from the start of a block, as fp32 into encoder.values. */
static int take_through(const struct scratch *scratch, const struct plan_tensor *tensor,
                        const uint8_t *src, uint64_t count, struct error *err)
{
    float *values = scratch->encoder.values;
    const struct device_blocks blocks = { .out = values,
                                          .codes = QUANT_NF4,
                                          .result_dtype = (enum dtype)tensor->dtype_in,
                                          .src = values,
                                          .count = count,
                                          .block = PLAN_ENCODING_BLOCK };

    /* What is not finite stays so, and is found where it is rounded. */
    if (lane_decode(scratch->lane, values, src, (enum dtype)tensor->dtype_in, 1, count, 0, err))
        return err->code;
    return lane_round_trip(scratch->lane, &blocks, err);
}

int run_fold_roundtrip(const struct job *job, const struct scratch *scratch,
                       const struct block_run *run, struct error *err)
{
    const struct plan_tensor *tensor = run->tensor;
    uint64_t width_in = dtype_bytes(run->dtype_in);
    uint64_t width_out = dtype_bytes(run->dtype_out);
    uint64_t begin = run->target ? run->target->row_first * run->target->cols : 0;
    uint64_t elements = tensor->in_bytes / width_in;
    uint64_t end = begin + run->first + run->count;

    for (uint64_t at = begin + run->first; at < end;) {
        uint64_t first = align_down(at, PLAN_ENCODING_BLOCK);
        uint64_t stop = min_u64(first + PLAN_ENCODED_ELEMENTS, end);
        uint64_t whole = min_u64(align_up(stop, PLAN_ENCODING_BLOCK), elements);
        uint64_t skipped = at - begin - run->first;
        struct block_run piece = *run;

        if (take_through(scratch, tensor, run->src + skipped * width_in - (at - first) * width_in,
                         whole - first, err))
            return err->code;
        piece.roundtrip = false;
        piece.dtype_in = DTYPE_F32;
        piece.first = at - begin;
        piece.count = stop - at;
        piece.src = (const uint8_t *)(scratch->encoder.values + (at - first));
        piece.dst = run->dst + skipped * width_out;
        if (run_fold(job, scratch, &piece, err))
            return err->code;
        at = stop;
    }
    return 0;
}

int roundtrip_fetch(const struct scratch *scratch, const struct plan_tensor *tensor,
                    const struct file *source, uint64_t first, uint64_t count, float *out,
                    struct error *err)
{
    uint64_t width = dtype_bytes((enum dtype)tensor->dtype_in);
    uint64_t from = align_down(first, PLAN_ENCODING_BLOCK);
    uint64_t end = min_u64(align_up(first + count, PLAN_ENCODING_BLOCK), tensor->in_bytes / width);

    if (file_pread(source, scratch->encoder.middle, (end - from) * width,
                   tensor->in_offset + from * width, err))
        return err->code = ERR_FAILED;
    if (take_through(scratch, tensor, scratch->encoder.middle, end - from, err))
        return err->code;
    for (uint64_t i = 0; i < count; i++)
        out[i] = scratch->encoder.values[first - from + i];
    return 0;
}

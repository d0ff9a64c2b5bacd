/*
 * The kernels of src/gpu as tables of operations, in the place of those of the processor: linked
 * with the tests of src/cpu, this makes tests of the kernels.  Each operation becomes a task.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "cpu/cpu.h"
#include "kernel/gpu_run.h"
#include "kernel/kernel_check.h"

static size_t found(const struct gpu_call *call)
{
    return call->bad == DEVICE_FINITE ? FOLD_FINITE : (size_t)(call->bad / 4);
}

static size_t gpu_fold_op(const struct fold_segment *segment)
{
    struct gpu_call call = { .task = { .op = DEVICE_FOLD, .fold = { .segment = *segment } } };
    struct fold_segment *given = &call.task.fold.segment;
    uint64_t rows = segment->cols
                        ? (segment->first_col + segment->count + segment->cols - 1) / segment->cols
                        : 0;

    given->deltas = NULL;
    gpu_call_both(&call, &given->dst, segment->dst,
                  segment->count * dtype_bytes(segment->dst_dtype));
    if (segment->src == segment->dst)
        gpu_call_same(&call, &given->src, segment->src);
    else
        gpu_call_in(&call, &given->src, segment->src,
                    segment->count * dtype_bytes(segment->src_dtype));
    for (unsigned d = 0; d < segment->delta_count; d++) {
        struct fold_delta *delta = &call.task.fold.deltas[d];

        *delta = segment->deltas[d];
        gpu_call_in(&call, &delta->a, delta->a,
                    fold_packed_floats(delta->rank, segment->cols) * sizeof(float));
        gpu_call_in(&call, &delta->b, delta->b, rows * delta->rank * sizeof(float));
    }
    gpu_call_run(&call);
    return found(&call);
}

static size_t convert(void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype,
                      size_t count)
{
    struct gpu_call call = { .task = { .op = DEVICE_CONVERT,
                                       .convert = { .src_dtype = src_dtype,
                                                    .dst_dtype = dst_dtype,
                                                    .rows = 1,
                                                    .cols = count,
                                                    .src_stride = count,
                                                    .dst_stride = count } } };

    gpu_call_both(&call, &call.task.convert.dst, dst, count * dtype_bytes(dst_dtype));
    if (src == dst)
        gpu_call_same(&call, &call.task.convert.src, src);
    else
        gpu_call_in(&call, &call.task.convert.src, src, count * dtype_bytes(src_dtype));
    gpu_call_run(&call);
    return found(&call);
}

/* A NaN, which the device makes the canonical one, is left to the definition. */
static void gpu_decode_op(float *dst, const void *src, enum dtype src_dtype, size_t count)
{
    float exact;

    convert(dst, DTYPE_F32, src, src_dtype, count);
    for (size_t i = 0; i < count; i++) {
        if (f32_bits(dst[i]) == F32_NAN) {
            fold_scalar.decode(&exact, (const unsigned char *)src + i * dtype_bytes(src_dtype),
                               src_dtype, 1);
            CHECK(exact != exact, "element %zu of %s is no NaN", i, dtype_name(src_dtype));
            dst[i] = exact;
        }
    }
}

static size_t gpu_encode_op(void *dst, enum dtype dst_dtype, const float *src, size_t count)
{
    return convert(dst, dst_dtype, src, DTYPE_F32, count);
}

static void gpu_panel_sum_op(float *sum, size_t stride, size_t rows, size_t cols, const float *a,
                             const float *b, size_t b_stride, uint32_t rank, bool first)
{
    struct gpu_call call = { .task = { .op = DEVICE_PANEL_SUM,
                                       .panel_sum = { .stride = stride,
                                                      .rows = rows,
                                                      .cols = cols,
                                                      .b_stride = b_stride,
                                                      .rank = rank,
                                                      .first = first } } };

    if (rows == 0 || cols == 0)
        return;
    gpu_call_both(&call, &call.task.panel_sum.sum, sum,
                  ((rows - 1) * stride + cols) * sizeof(float));
    gpu_call_in(&call, &call.task.panel_sum.a, a, fold_packed_floats(rank, cols) * sizeof(float));
    gpu_call_in(&call, &call.task.panel_sum.b, b, ((rows - 1) * b_stride + rank) * sizeof(float));
    gpu_call_run(&call);
}

static void gpu_add_scaled_op(float *w, const float *sum, float scale, size_t count)
{
    struct gpu_call call = { .task = { .op = DEVICE_ADD_SCALED,
                                       .add_scaled = { .scale = scale, .count = count } } };

    gpu_call_both(&call, &call.task.add_scaled.w, w, count * sizeof(float));
    gpu_call_in(&call, &call.task.add_scaled.sum, sum, count * sizeof(float));
    gpu_call_run(&call);
}

static void scale_by(enum device_op op, float *x, const float *factors, size_t factor_count,
                     size_t count)
{
    struct gpu_call call = { .task = { .op = op, .scale = { .rows = 1, .cols = count } } };

    gpu_call_both(&call, &call.task.scale.x, x, count * sizeof(float));
    gpu_call_in(&call, &call.task.scale.factors, factors, factor_count * sizeof(float));
    gpu_call_run(&call);
}

static void gpu_scale_op(float *x, float factor, size_t count)
{
    scale_by(DEVICE_SCALE_ROWS, x, &factor, 1, count);
}

static void gpu_scale_each_op(float *x, const float *factors, size_t count)
{
    scale_by(DEVICE_SCALE_COLS, x, factors, count, count);
}

static size_t gpu_quant_decode_op(float *dst, const struct quant_matrix *matrix,
                                  const struct quant_source *source, uint64_t first, size_t count)
{
    struct gpu_call call = { .task = { .op = DEVICE_DECODE,
                                       .decode = { .matrix = *matrix,
                                                   .source = *source,
                                                   .whole = *source->whole,
                                                   .first = first,
                                                   .count = count } } };
    struct device_decode *decode = &call.task.decode;
    struct quant_reads reads[QUANT_PART_COUNT];
    uint64_t elements = matrix->matrices * matrix->rows * matrix->cols;

    decode->source.whole = NULL;
    quant_reads_of(reads, matrix, source->first, source->count);
    gpu_call_both(&call, &decode->dst, dst, count * sizeof(float));
    for (int part = 0; part < QUANT_PART_COUNT; part++)
        gpu_call_in(&call, &decode->source.parts[part], source->parts[part],
                    reads[part].bytes * reads[part].count);
    if (matrix->scale == QUANT_SCALE_NESTED)
        gpu_call_in(&call, &decode->whole.nested, source->whole->nested,
                    ((elements + matrix->block_cols - 1) / matrix->block_cols + 255) / 256 *
                        sizeof(float));
    if (source->whole->group_of)
        gpu_call_in(&call, &decode->whole.group_of, source->whole->group_of,
                    matrix->cols * sizeof(uint32_t));
    gpu_call_run(&call);
    return found(&call);
}

static size_t gpu_bnb4_op(uint8_t *out, float *absmax, enum quant_codes codes, const float *src,
                          size_t count, size_t block)
{
    struct gpu_call call = {
        .task = { .op = DEVICE_BNB4, .blocks = { .codes = codes, .count = count, .block = block } }
    };

    gpu_call_both(&call, &call.task.blocks.out, out, (count + 1) / 2);
    gpu_call_both(&call, &call.task.blocks.absmax, absmax,
                  (count + block - 1) / block * sizeof(float));
    gpu_call_in(&call, &call.task.blocks.src, src, count * sizeof(float));
    gpu_call_run(&call);
    return found(&call);
}

static size_t gpu_round_trip_op(float *dst, enum quant_codes codes, enum dtype result_dtype,
                                const float *src, size_t count, size_t block)
{
    struct gpu_call call = { .task = { .op = DEVICE_ROUND_TRIP,
                                       .blocks = { .codes = codes,
                                                   .result_dtype = result_dtype,
                                                   .count = count,
                                                   .block = block } } };

    gpu_call_both(&call, &call.task.blocks.out, dst, count * sizeof(float));
    if (src == dst)
        gpu_call_same(&call, &call.task.blocks.src, src);
    else
        gpu_call_in(&call, &call.task.blocks.src, src, count * sizeof(float));
    gpu_call_run(&call);
    return found(&call);
}

/* As one row of all elements. */
static size_t gpu_scaled_op(uint8_t *out, enum quant_codes codes, const float *src, size_t count,
                            const float *scales, size_t block)
{
    struct gpu_call call = { .task = { .op = DEVICE_SCALED,
                                       .scaled = { .count = count,
                                                   .rows = 1,
                                                   .cols = count,
                                                   .block_rows = 1,
                                                   .block_cols = block,
                                                   .codes = codes } } };

    gpu_call_both(&call, &call.task.scaled.out, out, codes == QUANT_E2M1 ? (count + 1) / 2 : count);
    gpu_call_in(&call, &call.task.scaled.src, src, count * sizeof(float));
    gpu_call_in(&call, &call.task.scaled.scales, scales,
                (count + block - 1) / block * sizeof(float));
    gpu_call_run(&call);
    return found(&call);
}

static struct fold_ops fold_gpu = {
    .name = "kernels",
    .fold = gpu_fold_op,
    .decode = gpu_decode_op,
    .encode = gpu_encode_op,
    .panel_sum = gpu_panel_sum_op,
    .add_scaled = gpu_add_scaled_op,
    .scale = gpu_scale_op,
    .scale_each = gpu_scale_each_op,
};
static const struct quant_ops quant_gpu = { .name = "kernels", .decode = gpu_quant_decode_op };
static struct encode_ops encode_gpu = { .name = "kernels",
                                        .bnb4 = gpu_bnb4_op,
                                        .bnb4_round_trip = gpu_round_trip_op,
                                        .scaled = gpu_scaled_op };

/* What the tests ask the processor for; the linker puts these in its place. */

const struct fold_ops *const *__wrap_cpu_fold_available(void);
const struct quant_ops *const *__wrap_cpu_quant_available(void);
const struct encode_ops *const *__wrap_cpu_encode_available(void);
const struct quant_ops *__wrap_cpu_quant_find(const char *name);
const struct encode_ops *__wrap_cpu_encode_find(const char *name);

const struct fold_ops *const *__wrap_cpu_fold_available(void)
{
    static const struct fold_ops *const tables[] = { &fold_gpu, NULL };

    fold_gpu.add_squares = fold_scalar.add_squares; /* what no device is asked for */
    fold_gpu.add_squares_each = fold_scalar.add_squares_each;
    return tables;
}

const struct quant_ops *const *__wrap_cpu_quant_available(void)
{
    static const struct quant_ops *const tables[] = { &quant_gpu, NULL };

    return tables;
}

const struct encode_ops *const *__wrap_cpu_encode_available(void)
{
    static const struct encode_ops *const tables[] = { &encode_gpu, NULL };

    encode_gpu.absmax = encode_scalar.absmax;
    return tables;
}

const struct quant_ops *__wrap_cpu_quant_find(const char *name)
{
    return !name || strcmp(name, quant_gpu.name) == 0 ? &quant_gpu : NULL;
}

const struct encode_ops *__wrap_cpu_encode_find(const char *name)
{
    return !name || strcmp(name, encode_gpu.name) == 0 ? *__wrap_cpu_encode_available() : NULL;
}

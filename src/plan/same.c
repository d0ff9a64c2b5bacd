/*
 * same.c - a quantised base that is written back in its own scheme
 *
 * Output tensors are the base's as they are stored, in their order.  What no adapter
 * changes is copied, codes and companions alike.  Of a weight that one changes the
 * codes are made anew, and its scales, which may come before the codes or in another
 * shard, are made before the work.
 */
#include "plan/plan_internal.h"

#include "base/array.h"
#include "compute/quant_layout.h"

#include <stdlib.h>
#include <string.h>

#define SCALES_ALIGNMENT 8u

void plan_stored(struct plan_tensor *out, const struct model *stored, struct model_ref ref)
{
    *out = plan_copy_of(model_header(stored, ref), model_tensor(stored, ref));
    out->input = out->shard = ref.shard;
}

const char *plan_same_refusal(const struct scheme_tensor *quant)
{
    switch (quant->kind) {
    case SCHEME_FP8_BLOCK:
    case SCHEME_FP8_CHANNEL:
    case SCHEME_NVFP4:
    case SCHEME_MXFP4:
    case SCHEME_BNB8:
        break;
    case SCHEME_INT8:
        if (quant->matrix.zeros != QUANT_ZEROS_NONE)
            return "to write integers of 8 bits with zero points is a calibration problem; take "
                   "--save-method merged_16bit";
        break;
    case SCHEME_BNB4:
        return "bitsandbytes in 4 bits is written by --save-method merged_4bit";
    case SCHEME_PACKED:
        return "to write packed integers of compressed-tensors is a calibration problem; take "
               "--save-method merged_16bit or merged_4bit";
    case SCHEME_GPTQ:
        return "to write GPTQ is a calibration problem; take --save-method merged_16bit or "
               "merged_4bit";
    case SCHEME_AWQ:
        return "to write AWQ is a calibration problem; take --save-method merged_16bit or "
               "merged_4bit";
    case SCHEME_HQQ:
        return "to write HQQ is a calibration problem; take --save-method merged_16bit or "
               "merged_4bit";
    case SCHEME_TORCHAO:
        return "to write torchao is a calibration problem; take --save-method merged_16bit or "
               "merged_4bit";
    case SCHEME_MLX:
        return "to write MLX is a calibration problem; take --save-method merged_16bit or "
               "merged_4bit";
    case SCHEME_PLAIN:
        break;
    }
    return NULL;
}

static int refuse(const struct plan_tensor *tensor, const char *sentence, struct error *err)
{
    char quoted[QUOTED_BYTES];

    return error_set(err, ERR_FORMAT, "tensor '%s' (--save-method same): %s",
                     error_quote(quoted, sizeof(quoted), tensor->name, tensor->name_bytes),
                     sentence);
}

static int new_encoding(struct plan *plan, const struct scheme_tensor *quant,
                        struct plan_encoding **out, struct error *err)
{
    const struct quant_matrix *matrix = &quant->matrix;
    uint64_t bytes = quant->parts[QUANT_PART_SCALES].bytes;
    uint64_t elements = matrix->matrices * matrix->rows * matrix->cols; /* quant_check() */
    struct plan_encoding made = {
        .same = quant,
        .tensor = plan->tensor_count - 1,
        .elements = elements,
        .rows = matrix->matrices * matrix->rows,
        .cols = matrix->cols,
        .absmax_count = bytes / dtype_bytes(matrix->scale_dtype),
        .absmax_offset = plan->repack_bytes,
        .codes = matrix->codes,
        .middle = DTYPE_F32,
        .number = (uint32_t)plan->encoding_count,
    };

    if (plan->encoding_count == plan->encoding_capacity) {
        struct plan_encoding **more = array_grow(plan->encodings, &plan->encoding_capacity,
                                                 sizeof(*plan->encodings));

        if (!more)
            return error_no_memory(err, "the encodings");
        plan->encodings = more;
    }
    *out = plan_keep(plan, &made, sizeof(made));
    if (!*out)
        return error_no_memory(err, "an encoding");
    plan->encodings[plan->encoding_count++] = *out;
    plan->repack_bytes += align_up(bytes, SCALES_ALIGNMENT);
    plan->scale_count = max_u64(plan->scale_count, quant_ceil(matrix->cols, matrix->block_cols));
    plan->bytes_rescaled += quant->parts[QUANT_PART_CODES].bytes;
    return 0;
}

int plan_same(const struct plan_maker *maker, struct model_ref ref, uint64_t number,
              struct error *err)
{
    struct plan *plan = maker->plan;
    const struct plan_options *options = maker->options;
    const struct scheme_tensor *quant = &options->scheme->tensors[number];
    struct plan_tensor *tensor = &plan->tensors[plan->tensor_count - 1];
    struct plan_tensor stored;
    struct plan_encoding *encoding;
    const char *sentence;

    plan_stored(&stored, options->stored,
                (struct model_ref){ ref.shard, options->scheme->stored[number] });
    if (plan->replicas.count)
        return error_set(err, ERR_FORMAT,
                         "an adapter with layer_replication is not written in the scheme of a "
                         "quantised base; take --save-method merged_16bit");
    if (quant->kind == SCHEME_PLAIN) {
        /* The view gives decoded experts of gpt-oss another name. */
        if (strcmp(tensor->name, stored.name) != 0) {
            tensor->name = stored.name;
            tensor->name_bytes = stored.name_bytes;
        }
        return 0;
    }
    if (!tensor->quant)
        return refuse(tensor,
                      "the base has it quantised, and the adapter replaces all of it; take "
                      "--save-method merged_16bit",
                      err);
    if (tensor->target_count == 0) {
        *tensor = stored;
        return 0;
    }
    sentence = plan_same_refusal(quant);
    if (sentence)
        return refuse(tensor, sentence, err);
    if (new_encoding(plan, tensor->quant, &encoding, err))
        return err->code;
    tensor->name = stored.name;
    tensor->name_bytes = stored.name_bytes;
    tensor->shape = stored.shape;
    tensor->shape_count = stored.shape_count;
    tensor->out_bytes = stored.out_bytes;
    tensor->dtype_out = stored.dtype_out;
    tensor->encoding = encoding;
    tensor->action = PLAN_ENCODE;
    return 0;
}

static const struct scheme_part *scales_of(const struct plan_encoding *encoding)
{
    return &encoding->same->parts[QUANT_PART_SCALES];
}

static int compare_places(const void *left, const void *right)
{
    const struct scheme_part *x = scales_of(*(struct plan_encoding *const *)left);
    const struct scheme_part *y = scales_of(*(struct plan_encoding *const *)right);

    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Which encoding has these bytes as its scales, `sorted` by place; NULL: none. */
static const struct plan_encoding *find_encoding(const struct plan_tensor *tensor,
                                                 struct plan_encoding *const *sorted, size_t count)
{
    size_t low = 0;
    size_t high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct scheme_part *scales = scales_of(sorted[middle]);

        if (scales->shard < tensor->input ||
            (scales->shard == tensor->input && scales->offset < tensor->in_offset))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == count || scales_of(sorted[low])->shard != tensor->input ||
        scales_of(sorted[low])->offset != tensor->in_offset)
        return NULL;
    return sorted[low];
}

int plan_same_scales(struct plan *plan, struct error *err)
{
    struct plan_encoding **sorted = calloc(plan->encoding_count + 1, sizeof(*sorted));

    if (!sorted)
        return error_no_memory(err, "the encodings");
    if (plan->encoding_count)
        memcpy(sorted, plan->encodings, plan->encoding_count * sizeof(*sorted));
    qsort(sorted, plan->encoding_count, sizeof(*sorted), compare_places);
    for (size_t i = 0; i < plan->tensor_count; i++) {
        struct plan_tensor *tensor = &plan->tensors[i];
        const struct plan_encoding *encoding = NULL;

        if (tensor->action == PLAN_COPY && tensor->in_bytes && tensor->input < plan->shard_count)
            encoding = find_encoding(tensor, sorted, plan->encoding_count);
        if (!encoding)
            continue;
        tensor->encoding = encoding;
        tensor->action = PLAN_COMPANION;
        tensor->in_bytes = 0;
    }
    free(sorted);
    return 0;
}

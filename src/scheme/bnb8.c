#include "scheme/families.h"

static int check_format(struct scheme_find *find, const struct scheme_anchor *anchor,
                        struct error *err)
{
    struct model_ref ref;
    uint8_t format = 0;

    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, ".weight_format", &ref))
        return 0;
    if (model_tensor(find->model, ref)->element_count != 1)
        return find_refuse(find, anchor->ref, err, "its companion weight_format is not one number");
    if (find_take(find, anchor, ref, DTYPE_MASK(DTYPE_U8), NULL, 0, NULL, err) ||
        find_read(find, ref, &format, 1, err))
        return err->code;
    if (format != 0)
        return find_refuse(find, anchor->ref, err,
                           "its weight_format is %u, and only 0, rows, is decoded; load the model "
                           "with a bitsandbytes before 0.45 and save it before any forward pass",
                           format);
    return 0;
}

int find_bnb8(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    const uint64_t *shape = st_shape(model_header(find->model, anchor->ref), codes);
    struct scheme_tensor tensor = { .kind = SCHEME_BNB8 };
    uint64_t logical[2];
    struct model_ref ref;

    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, ".SCB", &ref))
        return 0;
    if (codes->shape_count != 2)
        return find_refuse(find, anchor->ref, err, "an 8-bit weight must have two dimensions");
    if (find_take(find, anchor, ref, DTYPE_MASK(DTYPE_F32), shape, 1,
                  &tensor.parts[QUANT_PART_SCALES], err) ||
        check_format(find, anchor, err))
        return err->code;
    /* A Conv1D was transposed before it was quantised. */
    tensor.matrix = (struct quant_matrix){
        .matrices = 1,
        .transposed = find_is_conv1d(find, anchor),
        .codes = QUANT_SIGNED,
        .packing = QUANT_BYTES,
        .bits = 8,
        .scale = QUANT_SCALE_ROW_127,
        .scale_dtype = DTYPE_F32,
        .block_rows = 1,
        .block_cols = shape[1],
        .result_dtype = families_dtype(find, DTYPE_F16),
    };
    logical[0] = tensor.matrix.rows = shape[tensor.matrix.transposed ? 1 : 0];
    logical[1] = tensor.matrix.cols = shape[tensor.matrix.transposed ? 0 : 1];
    return find_add(find, anchor, ".weight", logical, 2, &tensor, err);
}

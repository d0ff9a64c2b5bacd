#include "scheme/families.h"

/* "x._weight_qdata" and its like are the parts of "x.weight". */
int find_torchao(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    const uint64_t *shape = st_shape(model_header(find->model, anchor->ref), codes);
    struct scheme_tensor tensor = { .kind = SCHEME_TORCHAO };
    struct quant_matrix *matrix = &tensor.matrix;
    struct model_ref scales, other;

    if (codes->dtype != DTYPE_I8 && codes->dtype != DTYPE_F8_E4M3)
        return find_refuse(find, anchor->ref, err,
                           "weights of torchao as %s are not decoded, only those of 8 bits are; "
                           "merge into the 16-bit model that it was made from",
                           dtype_name((enum dtype)codes->dtype));
    if (find_sibling(find, anchor->stem, anchor->stem_bytes, "._weight_act_pre_scale", &other))
        return find_refuse(
            find, anchor->ref, err,
            "its inputs are scaled by act_pre_scale at run time, which a 16-bit model "
            "does not do; merge into the 16-bit model that it was made from");
    if (find_need(find, anchor, "._weight_scale", &scales, err) ||
        blocks_set(find, anchor, shape, codes->shape_count, scales, matrix, err) ||
        find_take(find, anchor, scales, MASK_COMPUTED, NULL, 0, &tensor.parts[QUANT_PART_SCALES],
                  err))
        return err->code;
    if (find_sibling(find, anchor->stem, anchor->stem_bytes, "._weight_zero_point", &other)) {
        matrix->zeros = QUANT_ZEROS_BYTES;
        if (blocks_check_zeros(find, other, scales, err) ||
            find_take(find, anchor, other, DTYPE_MASK(DTYPE_I8), NULL, 0,
                      &tensor.parts[QUANT_PART_ZEROS], err))
            return err->code;
    }
    matrix->codes = codes->dtype == DTYPE_I8 ? QUANT_SIGNED : QUANT_E4M3;
    matrix->packing = QUANT_BYTES;
    matrix->bits = 8;
    matrix->scale_dtype = tensor.parts[QUANT_PART_SCALES].dtype;
    matrix->result_dtype = families_dtype_of_scales(find, matrix->scale_dtype);
    if (find_take_if(find, anchor, "._weight_act_quant_scale", MASK_COMPUTED, err))
        return err->code;
    return find_add(find, anchor, ".weight", shape, codes->shape_count, &tensor, err);
}

#include "scheme/families.h"

#include <string.h>

static bool ends_in(const struct scheme_anchor *anchor, const char *end)
{
    size_t bytes = strlen(end);

    return anchor->stem_bytes >= bytes &&
           memcmp(anchor->stem + anchor->stem_bytes - bytes, end, bytes) == 0;
}

/*
 * Whatever the name says, the scale is a factor ("inv" is that of the quantiser).  A parameter of
 * fused experts has no ".weight".
 */
static bool find_scale(struct scheme_find *find, const struct scheme_anchor *anchor,
                       struct model_ref *out)
{
    static const char *const suffixes[] = { "_scale_inv", "_scale", "_scales_inv" };

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
        if (find_sibling(find, anchor->stem, anchor->stem_bytes, suffixes[i], out))
            return true;
    }
    return ends_in(anchor, ".weight") &&
           find_sibling(find, anchor->stem, anchor->stem_bytes - strlen(".weight"), ".scale", out);
}

/* One scale for each row or column, or for all. */
static bool is_by_rows(const struct quant_matrix *matrix)
{
    return matrix->block_cols == 1 ||
           (matrix->block_cols == matrix->cols &&
            (matrix->block_rows == 1 || matrix->block_rows == matrix->rows));
}

int find_fp8(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    const uint64_t *shape = st_shape(model_header(find->model, anchor->ref), codes);
    struct scheme_tensor tensor = { 0 };
    struct quant_matrix *matrix = &tensor.matrix;
    struct scheme_part *scales = &tensor.parts[QUANT_PART_SCALES];
    struct model_ref ref;
    float value;

    if (!find_scale(find, anchor, &ref))
        return 0;
    if (codes->dtype != DTYPE_F8_E4M3)
        return find_refuse(find, anchor->ref, err,
                           "weights of %s are not decoded; merge into the 16-bit model that it was "
                           "made from",
                           dtype_name((enum dtype)codes->dtype));
    if (blocks_set(find, anchor, shape, codes->shape_count, ref, matrix, err))
        return err->code;
    if (model_tensor(find->model, ref)->element_count == 1 &&
        (MASK_COMPUTED & DTYPE_MASK(model_tensor(find->model, ref)->dtype))) {
        if (find_take_scalar(find, anchor, ref, MASK_COMPUTED, scales, &value, err))
            return err->code;
    } else if (find_take(find, anchor, ref, MASK_COMPUTED | MASK_E8M0, NULL, 0, scales, err)) {
        return err->code;
    }
    tensor.kind = is_by_rows(matrix) ? SCHEME_FP8_CHANNEL : SCHEME_FP8_BLOCK;
    matrix->codes = QUANT_E4M3;
    matrix->packing = QUANT_BYTES;
    matrix->bits = 8;
    matrix->scale_dtype = scales->dtype == DTYPE_U8 ? DTYPE_F8_E8M0 : scales->dtype;
    matrix->result_dtype = families_dtype(find, DTYPE_BF16);
    return find_add(find, anchor, "", shape, codes->shape_count, &tensor, err);
}

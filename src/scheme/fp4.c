#include "base/bytes.h"
#include "scheme/families.h"

#include <string.h>

#define MX_BLOCK 32u /* elements of one scale, by the format */
#define NV_BLOCK 16u

/* Codes of two in a byte: the logical shape, and that of scales for blocks along the last
 * dimension. */
static int shapes_of(const struct scheme_find *find, const struct scheme_anchor *anchor,
                     uint64_t block, uint64_t logical[2], uint64_t scales[2], struct error *err)
{
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    const uint64_t *shape = st_shape(model_header(find->model, anchor->ref), codes);

    if (codes->shape_count != 2 || !mul_u64(shape[1], 2, &logical[1]))
        return find_refuse(find, anchor->ref, err, "a 4-bit weight must have two dimensions");
    logical[0] = scales[0] = shape[0];
    scales[1] = logical[1] / block + (logical[1] % block != 0);
    return 0;
}

static void set_matrix(struct quant_matrix *matrix, const uint64_t logical[2], uint64_t block,
                       enum dtype scale_dtype, enum dtype result_dtype)
{
    *matrix = (struct quant_matrix){
        .matrices = 1,
        .rows = logical[0],
        .cols = logical[1],
        .codes = QUANT_E2M1,
        .packing = QUANT_LOW_FIRST,
        .bits = 4,
        .scale_dtype = scale_dtype,
        .block_rows = 1,
        .block_cols = block,
        .result_dtype = result_dtype,
    };
}

static int add_mx(struct scheme_find *find, const struct scheme_anchor *anchor,
                  struct model_ref scales, enum dtype result_dtype, struct error *err)
{
    struct scheme_tensor tensor = { .kind = SCHEME_MXFP4 };
    uint64_t logical[2], scales_shape[2];

    if (shapes_of(find, anchor, MX_BLOCK, logical, scales_shape, err) ||
        find_take(find, anchor, scales, MASK_E8M0, scales_shape, 2,
                  &tensor.parts[QUANT_PART_SCALES], err))
        return err->code;
    set_matrix(&tensor.matrix, logical, MX_BLOCK, DTYPE_F8_E8M0, result_dtype);
    return find_add(find, anchor, ".weight", logical, 2, &tensor, err);
}

/* Engines lay the scales out in tiles of 128 x 4, padded to whole ones. */
static int refuse_swizzled(const struct scheme_find *find, const struct scheme_anchor *anchor,
                           struct model_ref scales, const uint64_t wanted[2], struct error *err)
{
    const struct st_tensor *tensor = model_tensor(find->model, scales);
    const uint64_t *shape = st_shape(model_header(find->model, scales), tensor);
    bool same = tensor->shape_count == 2 && shape[0] == wanted[0] && shape[1] == wanted[1];

    if (wanted[0] > UINT32_MAX || wanted[1] > UINT32_MAX || same ||
        tensor->element_count != align_up(wanted[0], 128) * align_up(wanted[1], 4))
        return 0;
    return find_refuse(find, anchor->ref, err,
                       "its scales are swizzled into tiles of 128 x 4 for an engine and are not "
                       "decoded; export the model with plain scales");
}

static int add_nv(struct scheme_find *find, const struct scheme_anchor *anchor,
                  struct model_ref scales, struct model_ref whole, enum quant_scale scale,
                  enum dtype result_dtype, struct error *err)
{
    struct scheme_tensor tensor = { .kind = SCHEME_NVFP4 };
    uint64_t logical[2], scales_shape[2];
    float value;

    if (shapes_of(find, anchor, NV_BLOCK, logical, scales_shape, err) ||
        refuse_swizzled(find, anchor, scales, scales_shape, err) ||
        find_take(find, anchor, scales, DTYPE_MASK(DTYPE_F8_E4M3), scales_shape, 2,
                  &tensor.parts[QUANT_PART_SCALES], err) ||
        find_take_scalar(find, anchor, whole, DTYPE_MASK(DTYPE_F32), &tensor.whole, &value, err))
        return err->code;
    if (value == 0.0f)
        return find_refuse(find, anchor->ref, err, "its global scale is 0");
    set_matrix(&tensor.matrix, logical, NV_BLOCK, DTYPE_F8_E4M3, result_dtype);
    tensor.matrix.scale = scale;
    return find_add(find, anchor, ".weight", logical, 2, &tensor, err);
}

/* compressed-tensors, which gives BF16 whatever the model's dtype is */
int find_fp4_packed(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    struct model_ref scales, whole;

    if (find_need(find, anchor, ".weight_scale", &scales, err))
        return err->code;
    if (find_sibling(find, anchor->stem, anchor->stem_bytes, ".weight_global_scale", &whole))
        return add_nv(find, anchor, scales, whole, QUANT_SCALE_OVER_WHOLE, DTYPE_BF16, err);
    if (model_tensor(find->model, scales)->dtype == DTYPE_F8_E4M3)
        return find_need(find, anchor, ".weight_global_scale", &whole, err);
    return add_mx(find, anchor, scales, DTYPE_BF16, err);
}

int find_fp4_modelopt(struct scheme_find *find, const struct scheme_anchor *anchor,
                      struct error *err)
{
    struct model_ref scales, whole, smooth;

    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, ".weight_scale", &scales) ||
        model_tensor(find->model, scales)->dtype != DTYPE_F8_E4M3)
        return 0;
    if (find_sibling(find, anchor->stem, anchor->stem_bytes, ".pre_quant_scale", &smooth))
        return find_refuse(find, anchor->ref, err,
                           "its inputs are scaled by pre_quant_scale at run time, which a 16-bit "
                           "model does not do; merge into the 16-bit model that it was made from");
    if (find_need(find, anchor, ".weight_scale_2", &whole, err))
        return err->code;
    return add_nv(find, anchor, scales, whole, QUANT_SCALE_TIMES_WHOLE,
                  families_dtype(find, DTYPE_BF16), err);
}

/* Experts of DeepSeek: two codes in an I8, and a scale without "weight" in its name. */
int find_fp4_deepseek(struct scheme_find *find, const struct scheme_anchor *anchor,
                      struct error *err)
{
    struct model_ref scales;

    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, ".scale", &scales) ||
        model_tensor(find->model, scales)->dtype != DTYPE_F8_E8M0)
        return 0;
    return add_mx(find, anchor, scales, families_dtype(find, DTYPE_BF16), err);
}

/* gpt-oss: blocks [experts, outputs, inputs / 32, 16], of a parameter [experts, inputs, outputs] */
int find_mxfp4_experts(struct scheme_find *find, const struct scheme_anchor *anchor,
                       struct error *err)
{
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    const uint64_t *shape = st_shape(model_header(find->model, anchor->ref), codes);
    struct scheme_tensor tensor = { .kind = SCHEME_MXFP4 };
    struct model_ref scales;
    uint64_t logical[3], stored[2];

    if (codes->shape_count != 4 || shape[3] != MX_BLOCK / 2 ||
        !mul_u64(shape[2], MX_BLOCK, &stored[1]))
        return 0;
    if (find_need(find, anchor, "_scales", &scales, err) ||
        find_take(find, anchor, scales, MASK_E8M0, shape, 3, &tensor.parts[QUANT_PART_SCALES], err))
        return err->code;
    stored[0] = shape[1];
    set_matrix(&tensor.matrix, stored, MX_BLOCK, DTYPE_F8_E8M0, families_dtype(find, DTYPE_BF16));
    tensor.matrix.transposed = true;
    tensor.matrix.matrices = logical[0] = shape[0];
    tensor.matrix.rows = logical[1] = stored[1];
    tensor.matrix.cols = logical[2] = stored[0];
    return find_add(find, anchor, "", logical, 3, &tensor, err);
}

/* transformers 5.23 keeps the name of the blocks when it saves the experts that it has decoded. */
int find_decoded_experts(struct scheme_find *find, const struct scheme_anchor *anchor,
                         struct error *err)
{
    static const char *const experts[] = { ".experts.gate_up_proj", ".experts.down_proj" };
    struct model_ref ref;

    if (model_tensor(find->model, anchor->ref)->shape_count != 3 ||
        find_sibling(find, anchor->stem, anchor->stem_bytes, "_scales", &ref))
        return 0;
    for (size_t i = 0; i < sizeof(experts) / sizeof(*experts); i++) {
        size_t bytes = strlen(experts[i]);

        if (anchor->stem_bytes >= bytes &&
            memcmp(anchor->stem + anchor->stem_bytes - bytes, experts[i], bytes) == 0)
            return find_rename(find, anchor, err);
    }
    return 0;
}

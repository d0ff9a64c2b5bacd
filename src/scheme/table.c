#include "scheme/families.h"

#include <string.h>

/* In this order; the first that makes an item of a tensor has it. */
static const struct family {
    const char *suffix;
    uint32_t dtypes;
    int (*find)(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err);
} families[] = {
    { ".quant_state.bitsandbytes__nf4", MASK_ANY, find_bnb4 },
    { ".quant_state.bitsandbytes__fp4", MASK_ANY, find_bnb4 },
    { ".weight", DTYPE_MASK(DTYPE_I8), find_bnb8 },
    { ".weight", DTYPE_MASK(DTYPE_I8), find_int8 },
    { ".weight", DTYPE_MASK(DTYPE_I8), find_fp4_deepseek },
    { ".weight", DTYPE_MASK(DTYPE_U8), find_fp4_modelopt },
    { ".weight_packed", DTYPE_MASK(DTYPE_U8), find_fp4_packed },
    { ".weight_packed", DTYPE_MASK(DTYPE_I32), find_packed },
    { "_blocks", DTYPE_MASK(DTYPE_U8), find_mxfp4_experts },
    { "_blocks", MASK_COMPUTED, find_decoded_experts },
    { ".qweight", DTYPE_MASK(DTYPE_I32), find_gptq },
    { ".qweight", DTYPE_MASK(DTYPE_I32), find_awq },
    { ".W_q", MASK_ANY, find_hqq },
    { ".weight", DTYPE_MASK(DTYPE_U32), find_mlx },
    { "._weight_qdata", MASK_ANY, find_torchao },
    { "",
      DTYPE_MASK(DTYPE_F8_E4M3) | DTYPE_MASK(DTYPE_F8_E5M2) | DTYPE_MASK(DTYPE_F8_E4M3FNUZ) |
          DTYPE_MASK(DTYPE_F8_E5M2FNUZ),
      find_fp8 },
};

static int find_one(struct scheme_find *find, struct model_ref ref, struct error *err)
{
    const struct st_tensor *tensor = model_tensor(find->model, ref);
    const char *name = st_name(model_header(find->model, ref), tensor);
    size_t place = find_place(find, ref);

    for (size_t i = 0; i < sizeof(families) / sizeof(*families); i++) {
        const struct family *family = &families[i];
        size_t suffix = strlen(family->suffix);
        const struct scheme_anchor anchor = { ref, name, tensor->name_bytes - suffix };

        if (find->item_of[place] != FIND_FREE)
            return 0;
        if (!(family->dtypes & DTYPE_MASK(tensor->dtype)) || tensor->name_bytes <= suffix ||
            memcmp(name + anchor.stem_bytes, family->suffix, suffix) != 0)
            continue;
        if (family->find(find, &anchor, err))
            return err->code;
    }
    return 0;
}

int families_find(struct scheme_find *find, struct error *err)
{
    const struct model *model = find->model;

    for (size_t i = 0; i < model->shard_count; i++) {
        for (size_t j = 0; j < model->shards[i].header.tensor_count; j++) {
            if (find_one(find, (struct model_ref){ (uint32_t)i, (uint32_t)j }, err))
                return err->code;
        }
    }
    return 0;
}

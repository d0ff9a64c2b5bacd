#include "base/log.h"
#include "scheme/families.h"

#include <string.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define MASK_INTEGERS                                                                              \
    (DTYPE_MASK(DTYPE_U8) | DTYPE_MASK(DTYPE_I8) | DTYPE_MASK(DTYPE_I16) | DTYPE_MASK(DTYPE_U16) | \
     DTYPE_MASK(DTYPE_I32) | DTYPE_MASK(DTYPE_U32))
#define MASK_SMALL_FLOATS                                                                          \
    (DTYPE_MASK(DTYPE_F4) | DTYPE_MASK(DTYPE_F6_E2M3) | DTYPE_MASK(DTYPE_F6_E3M2) |                \
     DTYPE_MASK(DTYPE_F8_E5M2) | DTYPE_MASK(DTYPE_F8_E4M3) | DTYPE_MASK(DTYPE_F8_E8M0) |           \
     DTYPE_MASK(DTYPE_F8_E4M3FNUZ) | DTYPE_MASK(DTYPE_F8_E5M2FNUZ))

/* Known by the names of codes and of one companion, and not decoded. */
static const struct {
    const char *suffix;
    const char *sibling;
    uint32_t dtypes;
    const char *what;
} refused[] = {
    { ".codes", ".codebooks", MASK_INTEGERS, "AQLM" },
    { ".dense_weights", ".row_offsets", MASK_INTEGERS, "SpQR" },
    { ".indices", ".centroids.weight", MASK_ANY, "VPTQ" },
    { ".Qidxs", "", MASK_INTEGERS, "QuIP#" },
    { ".weight", ".weight_scales", MASK_INTEGERS, "EETQ" },
    { ".qweight", ".qweight_type", MASK_ANY, "GGUF blocks" },
    { ".qweight_type", "", MASK_ANY, "GGUF blocks" },
    { ".weight._data", "", MASK_ANY, "quanto" },
    { ".blocks", ".scales", DTYPE_MASK(DTYPE_U8), "MXFP4 under OpenAI's own names" },
    { ".compressed", ".bitmask", MASK_ANY, "sparse weights of compressed-tensors" },
};

#define WAY_OUT "merge into the 16-bit model that it was made from"

/* Of inputs and of the key-value cache: a 16-bit model has none of them. */
static const struct {
    const char *suffix;
    bool of_weight; /* the module must have a quantised weight, else a configuration is enough */
} of_inputs[] = {
    { "input_scale", true },      { "activation_scale", true }, { "input_global_scale", true },
    { "input_zero_point", true }, { "output_scale", true },     { "k_scale", false },
    { "v_scale", false },         { "q_scale", false },         { "kv_scale", false },
};

/*
 * Companions alone: something is missing.  The first ones have names that nothing else has, the
 * others count in a base that is known to be quantised.
 */
static const struct {
    const char *suffix;
    bool always;
} companions[] = {
    { ".absmax", true },
    { ".nested_absmax", true },
    { ".SCB", true },
    { ".weight_scale_inv", true },
    { ".qzeros", true },
    { ".weight_packed", true },
    { ".weight_global_scale", true },
    { ".weight_scale_2", true },
    { ".quant_zero", true },
    { ".quant_map", false },
    { "_proj_scale_inv", false },
    { ".weight_scale", false },
    { ".weight_zero_point", false },
    { ".weight_g_idx", false },
    { ".pre_quant_scale", false },
    { "_proj_weight_scale_2", false },
    { ".weight_shape", false },
    { ".biases", false },
};

struct leftover {
    struct model_ref ref;
    const struct st_tensor *tensor;
    const char *name;
};

static bool ends_in(const struct leftover *left, const char *suffix)
{
    size_t bytes = strlen(suffix);

    return left->tensor->name_bytes > bytes &&
           memcmp(left->name + left->tensor->name_bytes - bytes, suffix, bytes) == 0;
}

static bool has_codes(struct scheme_find *find, const char *stem, size_t stem_bytes)
{
    static const char *const suffixes[] = { "", ".weight", ".weight_packed", ".qweight" };

    for (size_t i = 0; i < COUNT_OF(suffixes); i++) {
        struct model_ref ref;

        if (find_sibling(find, stem, stem_bytes, suffixes[i], &ref) &&
            find->item_of[find_place(find, ref)] < FIND_COMPANION)
            return true;
    }
    return false;
}

static bool is_of_inputs(struct scheme_find *find, const struct leftover *left)
{
    if (!(MASK_COMPUTED & DTYPE_MASK(left->tensor->dtype)) &&
        !(MASK_INTEGERS & DTYPE_MASK(left->tensor->dtype)))
        return false;
    for (size_t i = 0; i < COUNT_OF(of_inputs); i++) {
        size_t stem;

        if (!ends_in(left, of_inputs[i].suffix))
            continue;
        stem = left->tensor->name_bytes - strlen(of_inputs[i].suffix) - 1;
        if (left->name[stem] != '.' && left->name[stem] != '_')
            continue;
        if (of_inputs[i].of_weight)
            return has_codes(find, left->name, stem);
        return find->config.quantised && find->item_count && left->name[stem] == '.' &&
               left->tensor->element_count == 1;
    }
    return false;
}

static int refuse_known(struct scheme_find *find, const struct leftover *left, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        size_t stem = left->tensor->name_bytes - strlen(refused[i].suffix);
        struct model_ref ref;

        if (!ends_in(left, refused[i].suffix) ||
            !(refused[i].dtypes & DTYPE_MASK(left->tensor->dtype)))
            continue;
        if (refused[i].sibling[0] &&
            !find_sibling(find, left->name, stem, refused[i].sibling, &ref))
            continue;
        return find_refuse(find, left->ref, err,
                           "weights quantised as %s are not decoded; " WAY_OUT, refused[i].what);
    }
    return 0;
}

static bool is_known_method(const char *method)
{
    static const char *const methods[] = { "bitsandbytes", "fp8",      "fbgemm_fp8",
                                           "gptq",         "awq",      "mxfp4",
                                           "torchao",      "modelopt", "compressed-tensors",
                                           "hqq" };

    for (size_t i = 0; i < COUNT_OF(methods); i++) {
        if (strcmp(methods[i], method) == 0)
            return true;
    }
    return false;
}

/* Codes of a scheme that is not known, which would be copied as they are. */
static int refuse_codes(const struct scheme_find *find, const struct leftover *left,
                        struct error *err)
{
    uint32_t dtype = DTYPE_MASK(left->tensor->dtype);
    const char *last = left->name + left->tensor->name_bytes;
    char quoted[QUOTED_BYTES];

    while (last > left->name && last[-1] != '.')
        last--;
    if (!(dtype & MASK_SMALL_FLOATS) &&
        (!(dtype & MASK_INTEGERS) || left->tensor->shape_count < 2 ||
         (is_known_method(find->config.method) && !strstr(last, "weight") &&
          !strstr(last, "_proj"))))
        return 0;
    return find_refuse(
        find, left->ref, err,
        "it is %s in a base that is quantised (quant_method '%s'), and its "
        "companions are not those of any scheme that is decoded; " WAY_OUT,
        dtype_name((enum dtype)left->tensor->dtype),
        error_quote(quoted, sizeof(quoted), find->config.method, strlen(find->config.method)));
}

static int refuse_alone(const struct scheme_find *find, const struct leftover *left, bool quantised,
                        struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(companions); i++) {
        if ((quantised || companions[i].always) && ends_in(left, companions[i].suffix))
            return find_refuse(find, left->ref, err,
                               "it is a companion, but the quantised weight that it belongs to is "
                               "missing or is not quantised so");
    }
    if (strstr(left->name, ".quant_state."))
        return find_refuse(find, left->ref, err,
                           "only the quant_states bitsandbytes__nf4 and bitsandbytes__fp4 are "
                           "decoded");
    return 0;
}

static int check_one(struct scheme_find *find, const struct leftover *left, struct error *err)
{
    bool quantised = find->config.quantised || find->item_count;

    if (refuse_known(find, left, err))
        return err->code;
    if (quantised && is_of_inputs(find, left)) {
        find->item_of[find_place(find, left->ref)] = FIND_COMPANION;
        find->companion_count++;
        return 0;
    }
    if (refuse_alone(find, left, quantised, err))
        return err->code;
    return quantised ? refuse_codes(find, left, err) : 0;
}

static int check_config(const struct scheme_config *config, struct error *err)
{
    char quoted[QUOTED_BYTES];

    if (config->transforms)
        return error_set(err, ERR_FORMAT,
                         "the base's quantization_config has a transform_config: inputs are "
                         "transformed at run time, which a 16-bit model does not do; " WAY_OUT);
    if (config->sparsity[0] && strcmp(config->sparsity, "dense") != 0)
        return error_set(
            err, ERR_FORMAT,
            "the base's sparsity_config has the format '%s', which is not decoded; " WAY_OUT,
            error_quote(quoted, sizeof(quoted), config->sparsity, strlen(config->sparsity)));
    return 0;
}

int leftovers_check(struct scheme_find *find, struct error *err)
{
    const struct model *model = find->model;

    if (check_config(&find->config, err))
        return err->code;
    for (size_t i = 0; i < model->shard_count; i++) {
        const struct st_header *header = &model->shards[i].header;

        for (size_t j = 0; j < header->tensor_count; j++) {
            const struct leftover left = { { (uint32_t)i, (uint32_t)j },
                                           &header->tensors[j],
                                           st_name(header, &header->tensors[j]) };

            if (find->item_of[find_place(find, left.ref)] == FIND_FREE &&
                check_one(find, &left, err))
                return err->code;
        }
    }
    return 0;
}

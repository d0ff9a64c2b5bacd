#include "base/bytes.h"
#include "scheme/families.h"

#include <inttypes.h>
#include <string.h>

/* Codes, scales and zero points lie [inputs][outputs], codes packed along the inputs. */
struct sizes {
    uint64_t words; /* of 32 bits for all inputs of an output */
    uint64_t inputs;
    uint64_t outputs;
    uint64_t groups;
    unsigned bits;
};

static int check_method(const struct scheme_find *find, const struct scheme_anchor *anchor,
                        bool *less_one, struct error *err)
{
    const struct scheme_config *config = &find->config;
    char quoted[QUOTED_BYTES];

    if (strcmp(config->method, "gptq") != 0)
        return find_refuse(
            find, anchor->ref, err,
            "it looks like GPTQ, but the configuration's quant_method is '%s': what "
            "its zero points mean is not known",
            error_quote(quoted, sizeof(quoted), config->method, strlen(config->method)));
    *less_one = strcmp(config->format, "gptq_v2") != 0;
    if (*less_one && config->format[0] && strcmp(config->format, "gptq") != 0)
        return find_refuse(
            find, anchor->ref, err,
            "GPTQ in the format '%s' is not decoded, only gptq and gptq_v2 are",
            error_quote(quoted, sizeof(quoted), config->format, strlen(config->format)));
    return 0;
}

/* From g_idx, which has an element for each input, or from the configuration. */
static int set_bits(const struct scheme_find *find, const struct scheme_anchor *anchor,
                    struct sizes *sizes, struct error *err)
{
    uint64_t said = find->config.group_count ? find->config.groups[0].bits : 0;
    uint64_t all;

    if (said == 0 || said > 8)
        return find_refuse(find, anchor->ref, err,
                           "the configuration's quantization_config does not say its bits");
    if (sizes->inputs == 0) {
        if (!mul_u64(sizes->words, 32, &all) || all % said)
            return find_refuse(find, anchor->ref, err,
                               "%" PRIu64 " words are no whole number of codes of %" PRIu64 " bits",
                               sizes->words, said);
        sizes->inputs = all / said;
    }
    if (!blocks_fill_words(sizes->inputs, said, sizes->words))
        return find_refuse(find, anchor->ref, err,
                           "%" PRIu64 " inputs of %" PRIu64 " bits, as the configuration says, do "
                           "not take %" PRIu64 " words",
                           sizes->inputs, said, sizes->words);
    sizes->bits = (unsigned)said;
    return 0;
}

static int take_group_of(struct scheme_find *find, const struct scheme_anchor *anchor,
                         struct sizes *sizes, struct scheme_tensor *tensor, struct error *err)
{
    struct model_ref ref;

    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, ".g_idx", &ref))
        return 0;
    sizes->inputs = model_tensor(find->model, ref)->element_count;
    return find_take(find, anchor, ref, DTYPE_MASK(DTYPE_I32), &sizes->inputs, 1, &tensor->group_of,
                     err);
}

static int add(struct scheme_find *find, const struct scheme_anchor *anchor,
               const struct sizes *sizes, enum quant_zeros zeros, struct scheme_tensor *tensor,
               struct error *err)
{
    const uint64_t logical[2] = { sizes->outputs, sizes->inputs };
    uint64_t group = blocks_group_size(find, anchor, sizes->inputs, sizes->groups, err);

    if (group == 0)
        return err->code;
    tensor->matrix = (struct quant_matrix){
        .matrices = 1,
        .rows = sizes->outputs,
        .cols = sizes->inputs,
        .transposed = true,
        .codes = QUANT_UNSIGNED,
        .packing = zeros == QUANT_ZEROS_AWQ ? QUANT_WORDS_AWQ : QUANT_WORDS_DOWN,
        .bits = sizes->bits,
        .scale_dtype = tensor->parts[QUANT_PART_SCALES].dtype,
        .block_rows = group,
        .block_cols = 1,
        .zeros = zeros,
        .result_dtype = families_dtype_of_scales(find, tensor->parts[QUANT_PART_SCALES].dtype),
    };
    return find_add(find, anchor, ".weight", logical, 2, tensor, err);
}

/* Scales [groups, outputs], and zero points packed along the outputs. */
static int take_grid(struct scheme_find *find, const struct scheme_anchor *anchor,
                     const struct sizes *sizes, struct scheme_tensor *tensor, struct error *err)
{
    const uint64_t shape[2] = { sizes->groups, sizes->outputs };
    struct model_ref scales, zeros;
    uint64_t packed[2] = { sizes->groups };
    uint64_t all;

    if (!mul_u64(sizes->outputs, sizes->bits, &all))
        return find_refuse(find, anchor->ref, err, "its size overflows");
    packed[1] = all / 32 + (all % 32 != 0);
    if (find_need(find, anchor, ".scales", &scales, err) ||
        find_need(find, anchor, ".qzeros", &zeros, err) ||
        find_take(find, anchor, scales, MASK_COMPUTED, shape, 2, &tensor->parts[QUANT_PART_SCALES],
                  err) ||
        find_take(find, anchor, zeros, DTYPE_MASK(DTYPE_I32), packed, 2,
                  &tensor->parts[QUANT_PART_ZEROS], err))
        return err->code;
    return 0;
}

/* The shapes of qweight and scales, which say whether it is packed along outputs, as AWQ is. */
static int read_sizes(struct sizes *sizes, bool *across, struct scheme_find *find,
                      const struct scheme_anchor *anchor, struct error *err)
{
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    const uint64_t *shape = st_shape(model_header(find->model, anchor->ref), codes);
    const struct st_tensor *scales;
    const uint64_t *scales_shape;
    struct model_ref ref;
    char text[SHAPE_BYTES];
    char other[SHAPE_BYTES];

    if (find_need(find, anchor, ".scales", &ref, err))
        return err->code;
    scales = model_tensor(find->model, ref);
    scales_shape = st_shape(model_header(find->model, ref), scales);
    if (codes->shape_count == 2 && scales->shape_count == 2) {
        sizes->words = sizes->inputs = shape[0];
        sizes->groups = scales_shape[0];
        sizes->outputs = scales_shape[1];
        *across = shape[1] != sizes->outputs;
        if (!*across || (shape[1] <= UINT64_MAX / 8 && shape[1] * 8 == sizes->outputs))
            return 0;
    }
    return find_refuse(find, anchor->ref, err,
                       "its codes have shape %s and its companion scales %s: neither GPTQ nor AWQ "
                       "(gemm) packs them so",
                       shape_print(text, shape, codes->shape_count),
                       shape_print(other, scales_shape, scales->shape_count));
}

int find_gptq(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    struct scheme_tensor tensor = { .kind = SCHEME_GPTQ };
    struct sizes sizes;
    bool across, less_one;

    if (read_sizes(&sizes, &across, find, anchor, err))
        return err->code;
    if (across) /* find_awq() */
        return 0;
    sizes.inputs = 0;
    if (check_method(find, anchor, &less_one, err) ||
        take_group_of(find, anchor, &sizes, &tensor, err) || set_bits(find, anchor, &sizes, err) ||
        take_grid(find, anchor, &sizes, &tensor, err))
        return err->code;
    return add(find, anchor, &sizes, less_one ? QUANT_ZEROS_WORDS_1 : QUANT_ZEROS_WORDS, &tensor,
               err);
}

int find_awq(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    const struct scheme_config *config = &find->config;
    struct scheme_tensor tensor = { .kind = SCHEME_AWQ };
    struct sizes sizes;
    char quoted[QUOTED_BYTES];
    bool across;

    if (read_sizes(&sizes, &across, find, anchor, err))
        return err->code;
    sizes.bits = 4;
    if (strcmp(config->method, "awq") != 0)
        return find_refuse(
            find, anchor->ref, err,
            "it looks like AWQ, but the configuration's quant_method is '%s'",
            error_quote(quoted, sizeof(quoted), config->method, strlen(config->method)));
    if (config->format[0] && strcasecmp(config->format, "gemm") != 0)
        return find_refuse(
            find, anchor->ref, err, "AWQ of version '%s' is not decoded, only gemm is",
            error_quote(quoted, sizeof(quoted), config->format, strlen(config->format)));
    if (take_grid(find, anchor, &sizes, &tensor, err))
        return err->code;
    return add(find, anchor, &sizes, QUANT_ZEROS_AWQ, &tensor, err);
}

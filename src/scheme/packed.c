#include "base/bytes.h"
#include "scheme/families.h"

#include <inttypes.h>

/*
 * The width of the codes: that of the configuration which fits the shapes, or the only one that
 * fits; 0 if there is none.
 */
static unsigned bits_of(const struct scheme_find *find, uint64_t cols, uint64_t words)
{
    const struct scheme_config *config = &find->config;
    unsigned found = 0;

    for (size_t i = 0; i < config->group_count; i++) {
        uint64_t bits = config->groups[i].bits;

        if (bits && bits <= 8 && blocks_fill_words(cols, bits, words))
            return (unsigned)bits;
    }
    for (unsigned bits = 2; bits <= 8; bits++) {
        if (blocks_fill_words(cols, bits, words)) {
            if (found)
                return 0;
            found = bits;
        }
    }
    return found;
}

static int read_shape(struct scheme_find *find, const struct scheme_anchor *anchor,
                      uint64_t logical[2], struct error *err)
{
    const uint64_t two = 2;
    struct model_ref ref;
    uint8_t bytes[16];

    if (find_need(find, anchor, ".weight_shape", &ref, err) ||
        find_take(find, anchor, ref, DTYPE_MASK(DTYPE_I64) | DTYPE_MASK(DTYPE_I32), &two, 1, NULL,
                  err))
        return err->code;
    if (model_tensor(find->model, ref)->dtype == DTYPE_I64) {
        if (find_read(find, ref, bytes, 16, err))
            return err->code;
        logical[0] = load_le64(bytes);
        logical[1] = load_le64(bytes + 8);
        return 0;
    }
    if (find_read(find, ref, bytes, 8, err))
        return err->code;
    logical[0] = load_le32(bytes);
    logical[1] = load_le32(bytes + 4);
    return 0;
}

/* Asymmetric: packed along the rows; one for the whole tensor is a byte. */
static int take_zeros(struct scheme_find *find, const struct scheme_anchor *anchor,
                      const uint64_t logical[2], struct scheme_tensor *tensor, struct error *err)
{
    struct model_ref ref, scales;
    uint64_t shape[2] = { (logical[0] * tensor->matrix.bits + 31) / 32, 0 };

    tensor->matrix.zeros = QUANT_ZEROS_MIDDLE;
    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, ".weight_zero_point", &ref))
        return 0;
    if (find_need(find, anchor, ".weight_scale", &scales, err))
        return err->code;
    if (model_tensor(find->model, ref)->dtype == DTYPE_I8) {
        tensor->matrix.zeros = QUANT_ZEROS_BYTES;
        if (blocks_check_zeros(find, ref, scales, err))
            return err->code;
        return find_take(find, anchor, ref, DTYPE_MASK(DTYPE_I8), NULL, 0,
                         &tensor->parts[QUANT_PART_ZEROS], err);
    }
    tensor->matrix.zeros = QUANT_ZEROS_DOWN;
    if (logical[0])
        shape[1] = model_tensor(find->model, scales)->element_count / logical[0];
    return find_take(find, anchor, ref, DTYPE_MASK(DTYPE_I32), shape, 2,
                     &tensor->parts[QUANT_PART_ZEROS], err);
}

static int take_scales(struct scheme_find *find, const struct scheme_anchor *anchor,
                       const uint64_t logical[2], struct scheme_tensor *tensor, struct error *err)
{
    struct model_ref ref;

    if (find_need(find, anchor, ".weight_scale", &ref, err) ||
        blocks_set(find, anchor, logical, 2, ref, &tensor->matrix, err) ||
        find_take(find, anchor, ref, MASK_COMPUTED, NULL, 0, &tensor->parts[QUANT_PART_SCALES],
                  err))
        return err->code;
    tensor->matrix.scale_dtype = tensor->parts[QUANT_PART_SCALES].dtype;
    tensor->matrix.result_dtype = families_dtype_of_scales(find, tensor->matrix.scale_dtype);
    return 0;
}

int find_packed(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    const uint64_t *shape = st_shape(model_header(find->model, anchor->ref), codes);
    struct scheme_tensor tensor = { .kind = SCHEME_PACKED };
    uint64_t logical[2];
    struct model_ref ref;
    char text[SHAPE_BYTES];

    if (find_sibling(find, anchor->stem, anchor->stem_bytes, ".weight_g_idx", &ref))
        return find_refuse(find, anchor->ref, err,
                           "its inputs are in groups by weight_g_idx, which is not decoded; merge "
                           "into the 16-bit model that it was made from");
    if (read_shape(find, anchor, logical, err))
        return err->code;
    if (codes->shape_count != 2 || logical[0] != shape[0])
        return find_refuse(find, anchor->ref, err,
                           "its codes have shape %s and its weight_shape says %" PRIu64 " rows",
                           shape_print(text, shape, codes->shape_count), logical[0]);
    tensor.matrix.codes = QUANT_UNSIGNED;
    tensor.matrix.packing = QUANT_WORDS;
    tensor.matrix.bits = bits_of(find, logical[1], shape[1]);
    if (tensor.matrix.bits == 0)
        return find_refuse(find, anchor->ref, err,
                           "%" PRIu64 " words do not hold a row of %" PRIu64
                           " weights of any width that the configuration says",
                           shape[1], logical[1]);
    if (take_scales(find, anchor, logical, &tensor, err) ||
        take_zeros(find, anchor, logical, &tensor, err))
        return err->code;
    return find_add(find, anchor, ".weight", logical, 2, &tensor, err);
}

int find_int8(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    const uint64_t *shape = st_shape(model_header(find->model, anchor->ref), codes);
    struct scheme_tensor tensor = { .kind = SCHEME_INT8 };
    struct model_ref scales, zeros;

    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, ".weight_scale", &scales))
        return 0;
    if (codes->shape_count != 2)
        return find_refuse(find, anchor->ref, err, "an 8-bit weight must have two dimensions");
    tensor.matrix.codes = QUANT_SIGNED;
    tensor.matrix.packing = QUANT_BYTES;
    tensor.matrix.bits = 8;
    if (take_scales(find, anchor, shape, &tensor, err))
        return err->code;
    if (find_sibling(find, anchor->stem, anchor->stem_bytes, ".weight_zero_point", &zeros)) {
        tensor.matrix.zeros = QUANT_ZEROS_BYTES;
        if (blocks_check_zeros(find, zeros, scales, err) ||
            find_take(find, anchor, zeros, DTYPE_MASK(DTYPE_I8), NULL, 0,
                      &tensor.parts[QUANT_PART_ZEROS], err))
            return err->code;
    }
    return find_add(find, anchor, ".weight", shape, 2, &tensor, err);
}

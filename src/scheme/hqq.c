#include "base/bytes.h"
#include "scheme/families.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What stands beside codes, scales and zero points, each a tensor: numbers, and words as bytes. */
struct meta {
    uint32_t bits;
    uint32_t group_size;
    uint32_t axis;
    uint8_t as_float;
    uint8_t quant_scale;
    uint8_t quant_zero;
    char packing[16];
    char compute_dtype[24];
    uint64_t shape[2];
};

#define WAY_OUT "merge into the 16-bit model that it was made from"

static int read_number(struct scheme_find *find, const struct scheme_anchor *anchor,
                       const char *suffix, enum dtype dtype, void *out, struct error *err)
{
    uint8_t bytes[4];
    struct model_ref ref;

    if (find_need(find, anchor, suffix, &ref, err) ||
        find_take(find, anchor, ref, DTYPE_MASK(dtype), NULL, 0, NULL, err))
        return err->code;
    if (model_tensor(find->model, ref)->element_count != 1)
        return find_refuse(find, anchor->ref, err, "its companion %s is not one number",
                           suffix + 1);
    if (find_read(find, ref, bytes, dtype_bytes(dtype), err))
        return err->code;
    if (dtype == DTYPE_U8)
        *(uint8_t *)out = bytes[0];
    else
        *(uint32_t *)out = load_le32(bytes);
    return 0;
}

/* A word as U8; what is too long is cut, and is no word that is known. */
static int read_word(struct scheme_find *find, const struct scheme_anchor *anchor,
                     const char *suffix, char *out, size_t out_bytes, struct error *err)
{
    struct model_ref ref;
    uint64_t bytes;

    if (find_need(find, anchor, suffix, &ref, err) ||
        find_take(find, anchor, ref, DTYPE_MASK(DTYPE_U8), NULL, 0, NULL, err))
        return err->code;
    bytes = model_tensor(find->model, ref)->data_bytes;
    if (bytes > out_bytes - 1)
        bytes = out_bytes - 1;
    memset(out, 0, out_bytes);
    return bytes ? find_read(find, ref, out, (size_t)bytes, err) : 0;
}

static int read_shape(struct scheme_find *find, const struct scheme_anchor *anchor,
                      uint64_t shape[2], struct error *err)
{
    const uint64_t two = 2;
    struct model_ref ref;
    uint8_t bytes[16];

    if (find_need(find, anchor, ".shape", &ref, err) ||
        find_take(find, anchor, ref, DTYPE_MASK(DTYPE_I64), &two, 1, NULL, err) ||
        find_read(find, ref, bytes, sizeof(bytes), err))
        return err->code;
    shape[0] = load_le64(bytes);
    shape[1] = load_le64(bytes + 8);
    return 0;
}

static int read_meta(struct scheme_find *find, const struct scheme_anchor *anchor,
                     struct meta *meta, struct error *err)
{
    /* How it was quantised, which decoding does not ask. */
    static const char *const rest[] = { ".unpack_view_dtype",  ".offload_meta", ".round_zero",
                                        ".encoded_state_dict", ".channel_wise", ".optimize",
                                        ".stores_quant_config" };

    if (read_number(find, anchor, ".nbits", DTYPE_I32, &meta->bits, err) ||
        read_number(find, anchor, ".group_size", DTYPE_I32, &meta->group_size, err) ||
        read_number(find, anchor, ".axis", DTYPE_I32, &meta->axis, err) ||
        read_number(find, anchor, ".view_as_float", DTYPE_U8, &meta->as_float, err) ||
        read_number(find, anchor, ".quant_scale", DTYPE_U8, &meta->quant_scale, err) ||
        read_number(find, anchor, ".quant_zero", DTYPE_U8, &meta->quant_zero, err) ||
        read_word(find, anchor, ".packing", meta->packing, sizeof(meta->packing), err) ||
        read_word(find, anchor, ".compute_dtype", meta->compute_dtype, sizeof(meta->compute_dtype),
                  err) ||
        read_shape(find, anchor, meta->shape, err))
        return err->code;
    for (size_t i = 0; i < sizeof(rest) / sizeof(*rest); i++) {
        if (find_take_if(find, anchor, rest[i], DTYPE_MASK(DTYPE_U8), err))
            return err->code;
    }
    return 0;
}

/* Five and six bits have a byte each. */
static unsigned field_bits(const struct meta *meta)
{
    return meta->bits > 4 ? 8 : meta->bits;
}

/* Of all that HQQ can write, what is decoded. */
static int check_meta(const struct scheme_find *find, const struct scheme_anchor *anchor,
                      const struct meta *meta, struct error *err)
{
    const enum dtype dtype = (enum dtype)model_tensor(find->model, anchor->ref)->dtype;
    char packing[sizeof(meta->packing)];

    if (meta->bits < 1 || meta->bits > 8 || meta->bits == 7)
        return find_refuse(find, anchor->ref, err,
                           "HQQ of %" PRIu32
                           " bits is not decoded, only that of 1 to 6 and 8 is; " WAY_OUT,
                           meta->bits);
    if (meta->axis > 1)
        return find_refuse(find, anchor->ref, err,
                           "HQQ with groups along axis %" PRIu32
                           " is not decoded, only that along axis 0 or 1 is; " WAY_OUT,
                           meta->axis);
    if (meta->as_float || dtype != (meta->bits == 3 ? DTYPE_I32 : DTYPE_U8))
        return find_refuse(find, anchor->ref, err,
                           "HQQ of %" PRIu32
                           " bits with codes as %s is not decoded, only as %s; " WAY_OUT,
                           meta->bits, dtype_name(dtype), meta->bits == 3 ? "I32" : "U8");
    if (meta->quant_scale || meta->quant_zero)
        return find_refuse(find, anchor->ref, err,
                           "HQQ with scales or zero points that are quantised themselves is not "
                           "decoded; " WAY_OUT);
    snprintf(packing, sizeof(packing), meta->bits == 3 ? "%ubit_32" : "%ubit_u8", field_bits(meta));
    if (strcmp(packing, meta->packing) != 0)
        return find_refuse(find, anchor->ref, err,
                           "HQQ of %" PRIu32
                           " bits in another packing than %s is not decoded; " WAY_OUT,
                           meta->bits, packing);
    return 0;
}

static const char *torch_name(enum dtype dtype)
{
    if (dtype == DTYPE_F32)
        return "torch.float32";
    return dtype == DTYPE_BF16 ? "torch.bfloat16" : "torch.float16";
}

/*
 * Scales and zero points, [groups, 1] or along axis 0 [1, groups], of the dtype that weights are
 * computed in.
 */
static int take_grid(struct scheme_find *find, const struct scheme_anchor *anchor,
                     const struct meta *meta, uint64_t groups, struct scheme_tensor *tensor,
                     struct error *err)
{
    const uint64_t shape[2] = { meta->axis ? groups : 1, meta->axis ? 1 : groups };
    struct scheme_part *parts = tensor->parts;
    struct model_ref scales, zeros;

    if (find_need(find, anchor, ".scale", &scales, err) ||
        find_need(find, anchor, ".zero", &zeros, err) ||
        find_take(find, anchor, scales, MASK_COMPUTED, shape, 2, &parts[QUANT_PART_SCALES], err) ||
        find_take(find, anchor, zeros, DTYPE_MASK(parts[QUANT_PART_SCALES].dtype), shape, 2,
                  &parts[QUANT_PART_ZEROS], err))
        return err->code;
    if (strcmp(meta->compute_dtype, torch_name(parts[QUANT_PART_SCALES].dtype)) != 0)
        return find_refuse(find, anchor->ref, err,
                           "its compute_dtype is not %s, the dtype of its scales, which is not "
                           "decoded; " WAY_OUT,
                           torch_name(parts[QUANT_PART_SCALES].dtype));
    return 0;
}

/*
 * The elements in their order as a matrix: of groups below each other, or, along axis 0, beside
 * each other.  Where it can be it is that of the weight, whose rows are worked on at once.
 */
static void set_matrix(struct quant_matrix *out, const struct meta *meta, uint64_t groups,
                       enum dtype dtype)
{
    const unsigned bits = field_bits(meta);
    const bool fits = meta->shape[1] % meta->group_size == 0 && bits != 3 &&
                      meta->shape[0] % quant_bands(bits) == 0;

    *out = (struct quant_matrix){ .matrices = 1,
                                  .rows = groups,
                                  .cols = meta->group_size,
                                  .codes = QUANT_UNSIGNED,
                                  .packing = bits == 8 ? QUANT_BYTES : QUANT_BANDS,
                                  .bits = bits,
                                  .scale_dtype = dtype,
                                  .block_rows = 1,
                                  .block_cols = meta->group_size,
                                  .zeros = QUANT_ZEROS_NUMBERS,
                                  .result_dtype = dtype };
    if (meta->axis == 0) {
        out->rows = out->block_rows = meta->group_size;
        out->cols = groups;
        out->block_cols = 1;
    } else if (fits) {
        out->rows = meta->shape[0];
        out->cols = meta->shape[1];
    }
}

int find_hqq(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    struct scheme_tensor tensor = { .kind = SCHEME_HQQ };
    struct meta meta = { 0 };
    uint64_t elements, groups, rows;

    if (read_meta(find, anchor, &meta, err) || check_meta(find, anchor, &meta, err))
        return err->code;
    if (!mul_u64(meta.shape[0], meta.shape[1], &elements))
        return find_refuse(find, anchor->ref, err, "its size overflows");
    groups = meta.group_size ? elements / meta.group_size : 0;
    rows = meta.axis ? groups : meta.group_size;
    if (groups == 0 || elements % meta.group_size ||
        (meta.bits != 3 && rows % quant_bands(field_bits(&meta))))
        return find_refuse(find, anchor->ref, err,
                           "HQQ of %" PRIu32 " bits with groups of %" PRIu32 " along axis %" PRIu32
                           " is not decoded for the shape [%" PRIu64 ", %" PRIu64
                           "], since they do not divide it; " WAY_OUT,
                           meta.bits, meta.group_size, meta.axis, meta.shape[0], meta.shape[1]);
    if (take_grid(find, anchor, &meta, groups, &tensor, err))
        return err->code;
    set_matrix(&tensor.matrix, &meta, groups, tensor.parts[QUANT_PART_SCALES].dtype);
    return find_add(find, anchor, ".weight", meta.shape, 2, &tensor, err);
}

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
    static const char *const rest[] = { ".unpack_view_dtype",   ".offload_meta", ".round_zero",
                                        ".encoded_state_dict",  ".channel_wise", ".optimize",
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

/* Of all that HQQ can write, what is decoded. */
static int check_meta(const struct scheme_find *find, const struct scheme_anchor *anchor,
                      const struct meta *meta, struct error *err)
{
    const enum dtype dtype = (enum dtype)model_tensor(find->model, anchor->ref)->dtype;
    char packing[sizeof(meta->packing)];

    if (meta->bits != 8 && meta->bits != 4 && meta->bits != 2 && meta->bits != 1)
        return find_refuse(find, anchor->ref, err,
                           "HQQ of %" PRIu32 " bits is not decoded, only that of 8, 4, 2 and 1 is; "
                           WAY_OUT,
                           meta->bits);
    if (meta->axis != 1)
        return find_refuse(find, anchor->ref, err,
                           "HQQ with groups along axis %" PRIu32
                           " is not decoded, only that along axis 1 is; " WAY_OUT,
                           meta->axis);
    if (meta->as_float || dtype != DTYPE_U8)
        return find_refuse(find, anchor->ref, err,
                           "HQQ with codes as %s is not decoded, only as bytes; " WAY_OUT,
                           dtype_name(dtype));
    if (meta->quant_scale || meta->quant_zero)
        return find_refuse(find, anchor->ref, err,
                           "HQQ with scales or zero points that are quantised themselves is not "
                           "decoded; " WAY_OUT);
    snprintf(packing, sizeof(packing), "%" PRIu32 "bit_u8", meta->bits);
    if (strcmp(packing, meta->packing) != 0)
        return find_refuse(find, anchor->ref, err,
                           "HQQ of %" PRIu32 " bits in another packing than %s is not decoded; "
                           WAY_OUT,
                           meta->bits, packing);
    return 0;
}

static const char *torch_name(enum dtype dtype)
{
    if (dtype == DTYPE_F32)
        return "torch.float32";
    return dtype == DTYPE_BF16 ? "torch.bfloat16" : "torch.float16";
}

/* Scales and zero points [groups, 1] of the dtype that weights are computed in. */
static int take_grid(struct scheme_find *find, const struct scheme_anchor *anchor,
                     const struct meta *meta, struct scheme_tensor *tensor, struct error *err)
{
    struct scheme_part *parts = tensor->parts;
    uint64_t shape[2] = { 0, 1 };
    struct model_ref scales, zeros;

    if (!mul_u64(meta->shape[0], meta->shape[1] / meta->group_size, &shape[0]))
        return find_refuse(find, anchor->ref, err, "its size overflows");
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

int find_hqq(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    struct scheme_tensor tensor = { .kind = SCHEME_HQQ };
    struct meta meta = { 0 };

    if (read_meta(find, anchor, &meta, err) || check_meta(find, anchor, &meta, err))
        return err->code;
    if (meta.group_size == 0 || meta.shape[1] % meta.group_size || meta.shape[0] % (8 / meta.bits))
        return find_refuse(find, anchor->ref, err,
                           "HQQ with groups of %" PRIu32 " is not decoded for the shape [%" PRIu64
                           ", %" PRIu64 "]: groups must divide its rows, and %" PRIu32
                           " its number of rows; " WAY_OUT,
                           meta.group_size, meta.shape[0], meta.shape[1], 8 / meta.bits);
    if (take_grid(find, anchor, &meta, &tensor, err))
        return err->code;
    tensor.matrix = (struct quant_matrix){
        .matrices = 1,
        .rows = meta.shape[0],
        .cols = meta.shape[1],
        .codes = QUANT_UNSIGNED,
        .packing = meta.bits == 8 ? QUANT_BYTES : QUANT_BANDS,
        .bits = meta.bits,
        .scale_dtype = tensor.parts[QUANT_PART_SCALES].dtype,
        .block_rows = 1,
        .block_cols = meta.group_size,
        .zeros = QUANT_ZEROS_NUMBERS,
        .result_dtype = tensor.parts[QUANT_PART_SCALES].dtype,
    };
    return find_add(find, anchor, ".weight", meta.shape, 2, &tensor, err);
}

#include "base/bytes.h"
#include "scheme/bnb_state.h"
#include "scheme/families.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What bitsandbytes does to its scales in a forward pass on a processor, and saves then. */
#define FORWARD_PASS                                                                               \
    "; bitsandbytes writes such scales when a model is saved after a forward pass on a "           \
    "processor: "                                                                                  \
    "save it again before any forward pass"

static int read_state(struct bnb_state *out, struct scheme_find *find,
                      const struct scheme_anchor *codes, struct model_ref ref, struct error *err)
{
    const struct st_tensor *tensor = model_tensor(find->model, ref);
    const char *name = st_name(model_header(find->model, ref), tensor);
    char quoted[QUOTED_BYTES];
    char *json;

    error_quote(quoted, sizeof(quoted), name, tensor->name_bytes);
    if (find_take(find, codes, ref, DTYPE_MASK(DTYPE_U8), NULL, 0, NULL, err))
        return err->code;
    if (tensor->shape_count != 1 || tensor->data_bytes > BNB_STATE_BYTES_MAX)
        return find_refuse(find, codes->ref, err,
                           "its companion '%s' is not a list of at most %u bytes", quoted,
                           BNB_STATE_BYTES_MAX);
    json = malloc((size_t)tensor->data_bytes + 1);
    if (!json)
        return error_no_memory(err, "a quant_state");
    if (!find_read(find, ref, json, (size_t)tensor->data_bytes, err) &&
        bnb_state_read(out, json, (size_t)tensor->data_bytes, err))
        error_prefix(err, "'%s'", quoted);
    else if (!err->code && out->fp4 != (memcmp(name + tensor->name_bytes - 3, "fp4", 3) == 0))
        find_refuse(find, codes->ref, err, "its companion '%s' says another quant_type", quoted);
    free(json);
    return err->code;
}

static int check_codes(const struct scheme_find *find, const struct scheme_anchor *codes,
                       const struct bnb_state *state, uint64_t *elements, struct error *err)
{
    const struct st_tensor *tensor = model_tensor(find->model, codes->ref);
    const uint64_t *shape = st_shape(model_header(find->model, codes->ref), tensor);
    char text[SHAPE_BYTES];

    *elements = 1;
    for (size_t i = 0; i < state->shape_count; i++) {
        if (!mul_u64(*elements, state->shape[i], elements))
            return find_refuse(find, codes->ref, err, "its shape overflows");
    }
    if (tensor->shape_count == 2 && shape[0] == 1 && shape[1] > 1)
        return find_refuse(find, codes->ref, err,
                           "its codes have shape %s: weights packed as one row lie transposed and "
                           "are not decoded",
                           shape_print(text, shape, tensor->shape_count));
    if (tensor->shape_count != 1 && (tensor->shape_count != 2 || shape[1] != 1))
        return find_refuse(find, codes->ref, err, "its codes have shape %s and must have [n, 1]",
                           shape_print(text, shape, tensor->shape_count));
    return 0;
}

static int take_absmax(struct scheme_find *find, const struct scheme_anchor *codes, uint64_t blocks,
                       struct scheme_tensor *tensor, struct error *err)
{
    struct model_ref ref;
    const struct st_tensor *absmax;
    const uint64_t *shape;
    char text[SHAPE_BYTES];

    if (find_need(find, codes, ".absmax", &ref, err))
        return err->code;
    absmax = model_tensor(find->model, ref);
    shape = st_shape(model_header(find->model, ref), absmax);
    if ((absmax->dtype != DTYPE_F32 && absmax->dtype != DTYPE_U8) || absmax->shape_count != 1 ||
        shape[0] != blocks)
        return find_refuse(
            find, codes->ref, err,
            "its companion absmax is %s of shape %s and must be F32 or U8 of [%" PRIu64 "]%s",
            dtype_name((enum dtype)absmax->dtype), shape_print(text, shape, absmax->shape_count),
            blocks, absmax->dtype == DTYPE_BF16 ? FORWARD_PASS : "");
    tensor->matrix.scale_dtype = (enum dtype)absmax->dtype;
    return find_take(find, codes, ref, MASK_ANY, NULL, 0, &tensor->parts[QUANT_PART_SCALES], err);
}

static int take_nested(struct scheme_find *find, const struct scheme_anchor *codes,
                       const struct bnb_state *state, uint64_t blocks, struct scheme_tensor *tensor,
                       struct error *err)
{
    const uint64_t map_count = 256;
    const uint64_t nested_count = blocks / 256 + (blocks % 256 != 0);
    const uint32_t f32 = DTYPE_MASK(DTYPE_F32);
    bool nested = tensor->matrix.scale_dtype == DTYPE_U8;
    struct model_ref map, absmax;

    if (nested != state->nested)
        return find_refuse(
            find, codes->ref, err,
            "its absmax is %s, but its quant_state has %sthe fields of nested absmax",
            nested ? "U8" : "F32", state->nested ? "" : "not ");
    tensor->matrix.scale = nested ? QUANT_SCALE_NESTED : QUANT_SCALE_PLAIN;
    if (!nested)
        return 0;
    tensor->nested_offset = state->nested_offset;
    if (find_need(find, codes, ".nested_quant_map", &map, err) ||
        find_need(find, codes, ".nested_absmax", &absmax, err) ||
        find_take(find, codes, map, f32, &map_count, 1, &tensor->map, err) ||
        find_take(find, codes, absmax, f32, &nested_count, 1, &tensor->nested, err))
        return err->code;
    return 0;
}

static void set_matrix(struct quant_matrix *matrix, const struct bnb_state *state,
                       uint64_t elements)
{
    size_t count = state->shape_count;

    matrix->cols = state->shape[count - 1];
    matrix->rows = count > 1 ? state->shape[count - 2] : 1;
    matrix->matrices = elements / matrix->cols / matrix->rows;
    matrix->codes = state->fp4 ? QUANT_FP4_BNB : QUANT_NF4;
    matrix->packing = QUANT_HIGH_FLAT;
    matrix->bits = 4;
    matrix->block_cols = state->blocksize;
    matrix->result_dtype = state->dtype;
}

/*
 * A Conv1D was transposed before it was quantised.  What is read of it is a part of each stored
 * row, so that no block may pass the end of one.
 */
static int turn(struct scheme_find *find, const struct scheme_anchor *codes,
                struct bnb_state *state, struct quant_matrix *matrix, struct error *err)
{
    uint64_t stored_cols = matrix->cols;

    if (state->shape_count != 2 || stored_cols % state->blocksize)
        return find_refuse(find, codes->ref, err,
                           "it is the weight of a Conv1D, stored transposed, and blocks of %" PRIu64
                           " do not divide its %" PRIu64
                           " inputs, which is not decoded; merge into the 16-bit model that it was "
                           "made from",
                           (uint64_t)state->blocksize, stored_cols);
    matrix->cols = state->shape[1] = matrix->rows;
    matrix->rows = state->shape[0] = stored_cols;
    matrix->transposed = true;
    matrix->block_rows = 1;
    return 0;
}

/* The anchor is the quant_state, since codes may have any dtype. */
int find_bnb4(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    const uint64_t map_count = 16;
    struct scheme_anchor codes = *anchor;
    struct scheme_tensor tensor = { .kind = SCHEME_BNB4 };
    struct bnb_state state = { 0 };
    struct model_ref map;
    uint64_t elements, blocks;

    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, "", &codes.ref))
        return find_refuse(find, anchor->ref, err,
                           "the weight that it is the quant_state of is missing");
    if (read_state(&state, find, &codes, anchor->ref, err) ||
        check_codes(find, &codes, &state, &elements, err))
        return err->code;
    blocks = elements / state.blocksize + (elements % state.blocksize != 0);
    tensor.block_elements = state.blocksize;
    set_matrix(&tensor.matrix, &state, elements);
    if (find_is_conv1d(find, anchor) && turn(find, &codes, &state, &tensor.matrix, err))
        return err->code;
    if (find_need(find, &codes, ".quant_map", &map, err) ||
        find_take(find, &codes, map, DTYPE_MASK(DTYPE_F32), &map_count, 1, NULL, err) ||
        take_absmax(find, &codes, blocks, &tensor, err) ||
        take_nested(find, &codes, &state, blocks, &tensor, err))
        return err->code;
    return find_add(find, &codes, "", state.shape, state.shape_count, &tensor, err);
}

#include "base/bytes.h"
#include "compute/quant_layout.h"
#include "scheme/families.h"

#include <inttypes.h>
#include <string.h>

/* Of FP8 in blocks, where no configuration says it. */
#define BLOCK_USUAL 128u

bool blocks_fill_words(uint64_t count, uint64_t bits, uint64_t words)
{
    uint64_t all;

    return mul_u64(count, bits, &all) && quant_ceil(all, 32) == words;
}

uint64_t blocks_group_size(const struct scheme_find *find, const struct scheme_anchor *anchor,
                           uint64_t inputs, uint64_t count, struct error *err)
{
    const struct scheme_config *config = &find->config;
    uint64_t said = 0;

    for (size_t i = 0; i < config->group_count; i++) {
        uint64_t size = config->groups[i].group_size;

        if (size && quant_ceil(inputs, size) == count)
            return size;
        if (size)
            said = size;
    }
    if (count == 1 && inputs)
        return inputs;
    if (said) {
        find_refuse(find, anchor->ref, err,
                    "it has %" PRIu64 " groups for %" PRIu64
                    " inputs, and the configuration's group_size is %" PRIu64,
                    count, inputs, said);
        return 0;
    }
    if (count == 0 || inputs == 0 || inputs % count) {
        find_refuse(find, anchor->ref, err,
                    "it has %" PRIu64 " groups for %" PRIu64 " inputs, which do not divide", count,
                    inputs);
        return 0;
    }
    return inputs / count;
}

/* Blocks of these sizes, [rows][cols] in a matrix, are `down` x `across`? */
static bool covers(const struct quant_matrix *matrix, uint64_t block_rows, uint64_t block_cols,
                   uint64_t down, uint64_t across)
{
    return quant_ceil(matrix->rows, block_rows) == down &&
           quant_ceil(matrix->cols, block_cols) == across;
}

static bool configured(const struct scheme_find *find, struct quant_matrix *matrix, uint64_t down,
                       uint64_t across, bool *any)
{
    const struct scheme_config *config = &find->config;

    for (size_t i = 0; i < config->group_count; i++) {
        const struct scheme_group *group = &config->groups[i];

        if (group->block_rows == 0)
            continue;
        *any = true;
        if (covers(matrix, group->block_rows, group->block_cols, down, across)) {
            matrix->block_rows = group->block_rows;
            matrix->block_cols = group->block_cols;
            return true;
        }
    }
    return false;
}

/* Scales [down][across] of a matrix; false without a sentence: they make no blocks. */
static bool set_grid(const struct scheme_find *find, const struct scheme_anchor *anchor,
                     struct quant_matrix *matrix, uint64_t down, uint64_t across, struct error *err)
{
    /* Llama 4 as fbgemm makes it: experts lie [in, out], and each output has a scale. */
    bool by_column = strcmp(find->config.method, "fbgemm_fp8") == 0 && matrix->matrices > 1;
    bool any = false;

    matrix->block_rows = 1;
    matrix->block_cols = matrix->cols;
    if (by_column &&
        ((down == 1 && across == matrix->cols) || (down == matrix->cols && across == 1))) {
        matrix->block_rows = matrix->rows;
        matrix->block_cols = 1;
        return true;
    }
    if (configured(find, matrix, down, across, &any))
        return true;
    if (down == 1 && across == 1) {
        matrix->block_rows = matrix->rows;
        return true;
    }
    if (down == matrix->rows && across == 1)
        return true;
    if (!any && down != matrix->rows && covers(matrix, BLOCK_USUAL, BLOCK_USUAL, down, across)) {
        matrix->block_rows = matrix->block_cols = BLOCK_USUAL;
        return true;
    }
    if (down != matrix->rows)
        return false;
    matrix->block_cols = blocks_group_size(find, anchor, matrix->cols, across, err);
    return matrix->block_cols != 0;
}

/* Scales of three dimensions have one grid for each matrix, of two or one are rows of it. */
static bool set_by_shape(const struct scheme_find *find, const struct scheme_anchor *anchor,
                         struct quant_matrix *matrix, const uint64_t *scales, size_t count,
                         struct error *err)
{
    uint64_t one = 1;
    uint64_t dims[3] = { one, one, one };
    size_t rank = matrix->matrices > 1 ? 3 : 2;

    if (count > rank && count == 3 && scales[0] == 1) /* one matrix, written as such */
        scales++, count--;
    if (count > rank || (count < 1))
        return false;
    memcpy(dims, scales, count * sizeof(*scales));
    if (rank == 2)
        return set_grid(find, anchor, matrix, dims[0], dims[1], err);
    return dims[0] == matrix->matrices && set_grid(find, anchor, matrix, dims[1], dims[2], err);
}

int blocks_set(const struct scheme_find *find, const struct scheme_anchor *anchor,
               const uint64_t *shape, size_t shape_count, struct model_ref scales,
               struct quant_matrix *matrix, struct error *err)
{
    const struct st_header *header = model_header(find->model, scales);
    const struct st_tensor *tensor = model_tensor(find->model, scales);
    char has[SHAPE_BYTES];
    char text[SHAPE_BYTES];
    char quoted[QUOTED_BYTES];

    if (shape_count < 2 || shape_count > 3)
        return find_refuse(find, anchor->ref, err,
                           "a quantised weight of shape %s is not decoded, only those of two or "
                           "three dimensions are",
                           shape_print(has, shape, shape_count));
    matrix->matrices = shape_count == 3 ? shape[0] : 1;
    matrix->rows = shape[shape_count - 2];
    matrix->cols = shape[shape_count - 1];
    if (tensor->element_count == 1) { /* for all matrices, which are then one behind the other */
        if (!mul_u64(matrix->matrices, matrix->rows, &matrix->rows))
            return find_refuse(find, anchor->ref, err, "its size overflows");
        matrix->matrices = 1;
        matrix->block_rows = matrix->rows;
        matrix->block_cols = matrix->cols;
        return 0;
    }
    if (set_by_shape(find, anchor, matrix, st_shape(header, tensor), tensor->shape_count, err))
        return 0;
    if (err->code)
        return err->code;
    return find_refuse(
        find, anchor->ref, err,
        "its companion '%s' has shape %s, which makes no blocks of its shape %s "
        "that the configuration says or that are usual",
        error_quote(quoted, sizeof(quoted), st_name(header, tensor), tensor->name_bytes),
        shape_print(has, st_shape(header, tensor), tensor->shape_count),
        shape_print(text, shape, shape_count));
}

enum dtype families_dtype(const struct scheme_find *find, enum dtype otherwise)
{
    return find->config.has_dtype ? find->config.dtype : otherwise;
}

enum dtype families_dtype_of_scales(const struct scheme_find *find, enum dtype scales)
{
    if (scales == DTYPE_BF16 || scales == DTYPE_F16)
        return scales;
    return families_dtype(find, DTYPE_BF16);
}

int blocks_check_zeros(const struct scheme_find *find, struct model_ref zeros,
                       struct model_ref scales, struct error *err)
{
    const struct st_tensor *tensors[] = { model_tensor(find->model, zeros),
                                          model_tensor(find->model, scales) };
    const uint64_t *shapes[] = { st_shape(model_header(find->model, zeros), tensors[0]),
                                 st_shape(model_header(find->model, scales), tensors[1]) };
    char texts[2][SHAPE_BYTES];
    size_t at[2] = { 0, 0 };
    bool same = true;

    while (same && (at[0] < tensors[0]->shape_count || at[1] < tensors[1]->shape_count)) {
        uint64_t sizes[2];

        for (int i = 0; i < 2; i++) {
            while (at[i] < tensors[i]->shape_count && shapes[i][at[i]] == 1)
                at[i]++;
            sizes[i] = at[i] < tensors[i]->shape_count ? shapes[i][at[i]++] : 1;
        }
        same = sizes[0] == sizes[1];
    }
    if (same)
        return 0;
    return find_refuse(find, zeros, err, "its zero points have shape %s, and the scales %s",
                       shape_print(texts[0], shapes[0], tensors[0]->shape_count),
                       shape_print(texts[1], shapes[1], tensors[1]->shape_count));
}

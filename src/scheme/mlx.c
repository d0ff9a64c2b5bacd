#include "base/bytes.h"
#include "scheme/families.h"

#include <inttypes.h>

/* Shapes of the words [matrices, rows, words] and of a companion [matrices, rows, groups]. */
struct sizes {
    uint64_t matrices;
    uint64_t rows;
    uint64_t words;
    uint64_t groups;
};

/* The widths and groups of the configuration that make `words` of `groups`: how many different. */
static size_t choices(const struct scheme_config *config, const struct sizes *sizes,
                      struct scheme_group *out)
{
    size_t count = 0;

    for (size_t i = 0; i < config->group_count; i++) {
        const struct scheme_group *group = &config->groups[i];
        uint64_t inputs, bits;

        if (group->bits == 0 || group->bits > 8 || group->group_size == 0 ||
            !mul_u64(sizes->groups, group->group_size, &inputs) ||
            !mul_u64(inputs, group->bits, &bits) || bits % 32 || bits / 32 != sizes->words)
            continue;
        *out = *group;
        count++;
    }
    return count;
}

static int set_group(const struct scheme_find *find, const struct scheme_anchor *anchor,
                     const struct sizes *sizes, struct scheme_group *group, struct error *err)
{
    size_t count = choices(&find->config, sizes, group);

    if (count == 1)
        return 0;
    if (count > 1)
        return find_refuse(find, anchor->ref, err,
                           "the configuration's quantization has %zu pairs of bits and group_size "
                           "that make rows of %" PRIu64 " words with %" PRIu64
                           " scales: which of them it is cannot be told; merge into the 16-bit "
                           "model that it was made from",
                           count, sizes->words, sizes->groups);
    return find_refuse(find, anchor->ref, err,
                       "it is quantised as MLX does, and the configuration's quantization has no "
                       "bits and group_size that make rows of %" PRIu64 " words with %" PRIu64
                       " scales; merge into the 16-bit model that it was made from",
                       sizes->words, sizes->groups);
}

static int read_sizes(struct sizes *out, const struct scheme_find *find,
                      const struct scheme_anchor *anchor, struct model_ref scales,
                      struct error *err)
{
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    const struct st_tensor *other = model_tensor(find->model, scales);
    const uint64_t *shape = st_shape(model_header(find->model, anchor->ref), codes);
    const uint64_t *blocks = st_shape(model_header(find->model, scales), other);
    size_t rank = codes->shape_count;
    char has[SHAPE_BYTES];
    char text[SHAPE_BYTES];
    bool fits = (rank == 2 || rank == 3) && other->shape_count == rank;

    for (size_t i = 0; fits && i + 1 < rank; i++)
        fits = shape[i] == blocks[i];
    if (!fits)
        return find_refuse(find, anchor->ref, err,
                           "its codes have shape %s and its companion scales %s: MLX does not pack "
                           "them so",
                           shape_print(has, shape, rank),
                           shape_print(text, blocks, other->shape_count));
    *out = (struct sizes){
        .matrices = rank == 3 ? shape[0] : 1,
        .rows = shape[rank - 2],
        .words = shape[rank - 1],
        .groups = blocks[rank - 1],
    };
    return 0;
}

static int take(struct scheme_find *find, const struct scheme_anchor *anchor,
                struct model_ref scales, struct scheme_tensor *tensor, struct error *err)
{
    const struct st_tensor *shaped = model_tensor(find->model, scales);
    const uint64_t *shape = st_shape(model_header(find->model, scales), shaped);
    struct scheme_part *parts = tensor->parts;
    struct model_ref biases;

    /* Its other modes (mxfp4, nvfp4, mxfp8) have none. */
    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, ".biases", &biases))
        return find_refuse(find, anchor->ref, err,
                           "it is quantised as MLX does, but has no companion biases: only the "
                           "mode affine is decoded; merge into the 16-bit model that it was made "
                           "from");
    if (find_take(find, anchor, scales, MASK_COMPUTED, NULL, 0, &parts[QUANT_PART_SCALES], err) ||
        find_take(find, anchor, biases, DTYPE_MASK(parts[QUANT_PART_SCALES].dtype), shape,
                  shaped->shape_count, &parts[QUANT_PART_ZEROS], err))
        return err->code;
    return 0;
}

int find_mlx(struct scheme_find *find, const struct scheme_anchor *anchor, struct error *err)
{
    struct scheme_tensor tensor = { .kind = SCHEME_MLX };
    const struct st_tensor *codes = model_tensor(find->model, anchor->ref);
    struct scheme_group group = { 0 };
    struct model_ref scales;
    struct sizes sizes = { 0 };
    uint64_t logical[3];

    if (!find_sibling(find, anchor->stem, anchor->stem_bytes, ".scales", &scales))
        return 0;
    if (take(find, anchor, scales, &tensor, err) || read_sizes(&sizes, find, anchor, scales, err) ||
        set_group(find, anchor, &sizes, &group, err))
        return err->code;
    tensor.matrix = (struct quant_matrix){
        .matrices = sizes.matrices,
        .rows = sizes.rows,
        .cols = sizes.groups * group.group_size,
        .codes = QUANT_UNSIGNED,
        .packing = QUANT_WORDS,
        .bits = (unsigned)group.bits,
        .scale_dtype = tensor.parts[QUANT_PART_SCALES].dtype,
        .block_rows = 1,
        .block_cols = group.group_size,
        .zeros = QUANT_ZEROS_BIASES,
        .result_dtype = tensor.parts[QUANT_PART_SCALES].dtype,
    };
    logical[0] = sizes.matrices;
    logical[1] = sizes.rows;
    logical[2] = tensor.matrix.cols;
    return find_add(find, anchor, ".weight", logical + 3 - codes->shape_count, codes->shape_count,
                    &tensor, err);
}

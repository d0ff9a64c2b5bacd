#include "adapter/layer.h"

#include "base/bytes.h"
#include "format/conv1d.h"

#include <string.h>

/* What the base's model code has for the module of a pair. */
static enum conv1d by_model_type(const struct edits_context *context,
                                 const struct adapter_pair *pair)
{
    return conv1d_of(context->options->facts->model_type, pair->module, strlen(pair->module));
}

int layer_init(struct layer *out, const struct edits_context *context,
               const struct adapter_pair *pair, struct error *err)
{
    const struct adapter *adapter = context->adapter;
    const struct adapter_config *config = &adapter->config;
    const struct st_tensor *a = &adapter->header.tensors[pair->tensor_a];
    const struct st_tensor *b = &adapter->header.tensors[pair->tensor_b];
    uint64_t product;
    char quoted[QUOTED_BYTES];

    *out = (struct layer){ .adapter = adapter,
                           .pair = pair,
                           .a_shape = st_shape(&adapter->header, a),
                           .a_shape_count = a->shape_count,
                           .a_blocks = 1,
                           .b_blocks = 1,
                           .may_transpose = config->fan_in_fan_out ||
                                            by_model_type(context, pair) == CONV1D_YES };
    if (config->bdlora &&
        adapter_config_blocks(config, pair->module, &out->a_blocks, &out->b_blocks, err))
        return err->code;
    if (a->shape_count < 2 || b->shape_count < 2 || !pair->rank || !a->element_count ||
        !b->element_count || !out->a_blocks || !out->b_blocks)
        goto wrong;
    out->out = st_shape(&adapter->header, b)[0];
    /* A [rank, in / blocks, kernel...], B [out, rank / blocks, 1...] */
    if (a->element_count % pair->rank != 0 ||
        !mul_u64(a->element_count / pair->rank, out->a_blocks, &out->in) ||
        !mul_u64(out->out, pair->rank / out->b_blocks, &product) || product != b->element_count ||
        pair->rank % out->a_blocks != 0 || pair->rank % out->b_blocks != 0 ||
        out->out % out->b_blocks != 0 || (out->a_blocks > 1 && a->shape_count != 2))
        goto wrong;
    return 0;
wrong:
    return error_set(err, ERR_FORMAT,
                     "the factors of module '%s' do not have the shapes of rank %u%s",
                     error_quote(quoted, sizeof(quoted), pair->module, strlen(pair->module)),
                     pair->rank, config->bdlora ? " and of the blocks that 'use_bdlora' says" : "");
}

unsigned layer_ways(const struct layer *layer, const uint64_t *shape, size_t shape_count)
{
    unsigned ways = 0;

    if (layer->pair->layer == ADAPTER_LAYER_EMBEDDING)
        return shape_count == 2 && shape[0] == layer->in && shape[1] == layer->out ? LAYER_IN_OUT
                                                                                   : 0;
    if (shape_count != layer->a_shape_count || shape_count < 2)
        return 0;
    if (shape_count > 2)
        return shape[0] == layer->out && memcmp(shape + 1, layer->a_shape + 1,
                                                (shape_count - 1) * sizeof(*shape)) == 0
                   ? LAYER_OUT_IN
                   : 0;
    if (shape[0] == layer->out && shape[1] == layer->in)
        ways |= LAYER_OUT_IN;
    /* A wrong base can have the transposed shape by accident. */
    if (shape[0] == layer->in && shape[1] == layer->out && layer->may_transpose)
        ways |= LAYER_IN_OUT;
    return ways;
}

bool layer_is_conv1d(const struct layer *layer, const struct edits_context *context)
{
    enum conv1d known = by_model_type(context, layer->pair);

    if (known != CONV1D_UNKNOWN)
        return known == CONV1D_YES;
    context->notes->guessed_count += layer->adapter->config.fan_in_fan_out;
    return layer->adapter->config.fan_in_fan_out;
}

struct factor_view layer_view_of_a(const struct layer *layer)
{
    return (struct factor_view){ .tensor = layer->pair->tensor_a,
                                 .blocks = layer->a_blocks,
                                 .index_stride = 1,
                                 .rank_stride = layer->in / layer->a_blocks,
                                 .step = 1,
                                 .count = layer->in };
}

struct factor_view layer_view_of_b(const struct layer *layer)
{
    return (struct factor_view){ .tensor = layer->pair->tensor_b,
                                 .blocks = layer->b_blocks,
                                 .index_stride = layer->pair->rank / layer->b_blocks,
                                 .rank_stride = 1,
                                 .step = 1,
                                 .count = layer->out };
}

#include "adapter/edits_find.h"
#include "adapter/layer.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *quote_module(char buf[QUOTED_BYTES], const struct adapter_pair *pair)
{
    return error_quote(buf, QUOTED_BYTES, pair->module, strlen(pair->module));
}

/* Where the adapter has its own copy of the tensor, that is what the factors were made for. */
static bool weight_fits(const void *wanted, const struct st_header *header,
                        const struct st_tensor *tensor)
{
    const struct layer *layer = wanted;
    const struct st_header *own = &layer->adapter->header;
    const uint64_t *shape = st_shape(header, tensor);
    const struct st_tensor *copy;
    const uint64_t *copy_shape;

    if (layer->pair->tensor_base == ADAPTER_NO_TENSOR)
        return layer_ways(layer, shape, tensor->shape_count) != 0;
    copy = &own->tensors[layer->pair->tensor_base];
    copy_shape = st_shape(own, copy);
    return layer_ways(layer, copy_shape, copy->shape_count) &&
           tensor->shape_count == copy->shape_count &&
           memcmp(shape + 1, copy_shape + 1, (copy->shape_count - 1u) * sizeof(*shape)) == 0 &&
           (layer->resizable || shape[0] == copy_shape[0]);
}

static bool bias_fits(const void *wanted, const struct st_header *header,
                      const struct st_tensor *tensor)
{
    const struct layer *layer = wanted;

    return tensor->shape_count == 1 && st_shape(header, tensor)[0] == layer->out;
}

static int refuse_shape(const struct layer *layer, const struct model *model, struct model_ref ref,
                        struct error *err)
{
    const struct st_header *header = model_header(model, ref);
    const struct st_tensor *tensor = model_tensor(model, ref);
    const uint64_t *shape = st_shape(header, tensor);
    struct text text = edits_shape_text(header, tensor);
    bool embedding = layer->pair->layer == ADAPTER_LAYER_EMBEDDING;
    bool grouped = tensor->shape_count > 2 && tensor->shape_count == layer->a_shape_count &&
                   shape[1] && layer->a_shape[1] > shape[1] && layer->a_shape[1] % shape[1] == 0;
    bool transposed = !embedding && tensor->shape_count == 2 && shape[0] == layer->in &&
                      shape[1] == layer->out;
    bool resized = tensor->shape_count == 2 && layer->resizable &&
                   shape[1] == (embedding ? layer->out : layer->in);
    char quoted[QUOTED_BYTES];

    /* Quantised weights have odd shapes, which are not what is wrong. */
    if (!edits_check_dtype(model, ref, err))
        error_set(
            err, ERR_MISMATCH,
            "tensor '%s' of the base has shape %s, but the factors make [%" PRIu64 ", %" PRIu64
            "]%s%s",
            edits_quote_ref(quoted, model, ref), text.failed ? "" : text.data,
            embedding ? layer->in : layer->out, embedding ? layer->out : layer->in,
            tensor->shape_count > 2 ? " (outputs, inputs times kernel)" : "",
            grouped ? ": a convolution in groups, for which the product of the factors is not "
                      "defined; PEFT does not merge it either"
            : resized
                ? ": the vocabulary was resized, and no copy of the tensor with its new rows was "
                  "saved; give a base that was saved after it was resized"
            : transposed
                ? ": the base stores it transposed, as GPT-2's Conv1D layers are, but neither "
                  "its model type nor fan_in_fan_out of the adapter says so"
                : "");
    text_release(&text);
    return err->code;
}

static int check_magnitude(const struct layer *layer, struct error *err)
{
    const struct st_header *own = &layer->adapter->header;
    uint64_t count = own->tensors[layer->pair->tensor_magnitude].element_count;
    char quoted[QUOTED_BYTES];

    if (count == layer->out)
        return 0;
    return error_set(err, ERR_FORMAT,
                     "the DoRA magnitude of module '%s' has %" PRIu64
                     " elements; it needs one for each of %" PRIu64 " outputs",
                     quote_module(quoted, layer->pair), count, layer->out);
}

/* Takes place->new_name. */
static int add_weight(struct adapter_edits *edits, const struct edits_context *context,
                      const struct layer *layer, const struct edits_place *place, uint32_t pair,
                      bool doubled, struct error *err)
{
    const struct adapter_pair *from = layer->pair;
    bool has_copy = from->tensor_base != ADAPTER_NO_TENSOR;
    const struct st_header *header = has_copy ? &layer->adapter->header
                                              : model_header(context->model, place->tensor);
    const struct st_tensor *tensor = has_copy ? &header->tensors[from->tensor_base]
                                              : model_tensor(context->model, place->tensor);
    unsigned ways = layer_ways(layer, st_shape(header, tensor), tensor->shape_count);
    bool transposed = ways == LAYER_IN_OUT ||
                      (ways == (LAYER_OUT_IN | LAYER_IN_OUT) && layer_is_conv1d(layer, context));
    bool dora = from->tensor_magnitude != ADAPTER_NO_TENSOR;
    struct adapter_edit edit = {
        .kind = EDIT_DELTA,
        .side = place->side,
        .tensor = place->tensor,
        .new_name = place->new_name,
        .replica = place->replica,
        .pair = pair,
        .source = from->tensor_base,
        .rows = transposed ? layer->in : layer->out,
        .cols = transposed ? layer->out : layer->in,
        .row_count = transposed ? layer->in : layer->out,
        .left = transposed ? layer_view_of_a(layer) : layer_view_of_b(layer),
        .right = transposed ? layer_view_of_b(layer) : layer_view_of_a(layer),
        .rank = from->rank,
        .scale = doubled ? 2 * from->scale : from->scale,
        .norm = !dora        ? EDIT_NO_NORM
                : transposed ? EDIT_NORM_OF_COLS
                             : EDIT_NORM_OF_ROWS,
        .magnitude = from->tensor_magnitude,
    };

    context->notes->doubled_count += doubled;
    if (edits_check_dtype(context->model, place->tensor, err) ||
        (dora && check_magnitude(layer, err))) {
        free(place->new_name);
        return err->code;
    }
    return edits_add(edits, &edit, err);
}

/* A bias on lora_B: scale * bias is added to the layer's own. */
static int add_bias(struct adapter_edits *edits, const struct edits_context *context,
                    const struct layer *layer, uint32_t pair, const char *ending, struct error *err)
{
    const struct adapter_pair *from = layer->pair;
    struct adapter_edit edit;
    struct edits_place place;
    struct text name = { 0 };
    char quoted[2][QUOTED_BYTES];
    int status;

    if (layer->adapter->header.tensors[from->tensor_b_bias].element_count != layer->out)
        return error_set(err, ERR_FORMAT,
                         "lora_B.bias of module '%s' does not have one element for each of %" PRIu64
                         " outputs",
                         quote_module(quoted[0], from), layer->out);
    text_adds(&name, from->module);
    text_adds(&name, ending);
    status = name.failed ? error_no_memory(err, "a tensor name")
                         : edits_find(&place, context, name.data, bias_fits, layer, err);
    if (!status && place.answer != EDITS_FOUND)
        status = error_set(err, ERR_MISMATCH,
                           "module '%s' has a trained bias (lora_bias), but the base has no '%s' "
                           "of %" PRIu64 " elements that it could be added to",
                           quote_module(quoted[0], from),
                           error_quote(quoted[1], QUOTED_BYTES, name.data, name.bytes), layer->out);
    text_release(&name);
    if (!status)
        status = edits_check_dtype(context->model, place.tensor, err);
    if (status)
        return status;
    edit = (struct adapter_edit){
        .kind = EDIT_DELTA,
        .tensor = place.tensor,
        .replica = place.replica,
        .pair = pair,
        .source = ADAPTER_NO_TENSOR,
        .rows = 1,
        .cols = layer->out,
        .row_count = 1,
        .left = { .tensor = EDIT_ALL_ONES, .blocks = 1, .step = 1, .count = 1 },
        .right = { .tensor = from->tensor_b_bias,
                   .blocks = 1,
                   .index_stride = 1,
                   .step = 1,
                   .count = layer->out },
        .rank = 1,
        .scale = from->scale,
        .magnitude = ADAPTER_NO_TENSOR,
    };
    return edits_add(edits, &edit, err);
}

static int compare_module(const void *key, const void *element)
{
    return strcmp(key, ((const struct adapter_pair *)element)->module);
}

/*
 * PEFT puts factors on an attention layer and on its output projection together, and then adds the
 * latter's delta twice, in training as well.
 */
static int is_attention_output(bool *yes, const struct adapter *adapter, const char *module,
                               struct error *err)
{
    const char *dot = strrchr(module, '.');
    char *owner;

    *yes = false;
    if (!dot || strcmp(dot, ".out_proj") != 0)
        return 0;
    owner = strndup(module, (size_t)(dot - module));
    if (!owner)
        return error_no_memory(err, "a module name");
    *yes = bsearch(owner, adapter->pairs, adapter->pair_count, sizeof(*adapter->pairs),
                   compare_module) != NULL;
    free(owner);
    return 0;
}

/* Find "<module><ending>"; `name` keeps what was looked for. */
static int find_part(struct edits_place *out, struct text *name,
                     const struct edits_context *context, struct layer *layer, const char *ending,
                     struct error *err)
{
    text_clear(name);
    text_adds(name, layer->pair->module);
    text_adds(name, ending);
    if (name->failed)
        return error_no_memory(err, "a tensor name");
    layer->resizable = adapter_tensor_use(name->data, name->bytes) != EDIT_UNTIED;
    return edits_find(out, context, name->data, weight_fits, layer, err);
}

int edits_of_layer(struct adapter_edits *edits, bool *placed, const struct edits_context *context,
                   uint32_t pair, struct error *err)
{
    const struct adapter_pair *from = &context->adapter->pairs[pair];
    struct edits_place place = { 0 };
    struct text name = { 0 };
    const char *bias = ".bias";
    struct layer layer;
    bool doubled;
    int status;

    *placed = true;
    status = layer_init(&layer, context, from, err);
    if (!status)
        status = is_attention_output(&doubled, context->adapter, from->module, err);
    if (!status)
        status = find_part(&place, &name, context, &layer, ".weight", err);
    if (!status && place.answer == EDITS_NOT_THERE && from->layer == ADAPTER_LAYER_WEIGHT) {
        status = find_part(&place, &name, context, &layer, ".in_proj_weight", err);
        bias = ".in_proj_bias";
    }
    if (status)
        goto out;
    if (place.answer == EDITS_NOT_THERE)
        *placed = false;
    else if (place.answer == EDITS_OTHER_SHAPE)
        status = refuse_shape(&layer, context->model, place.tensor, err);
    else
        status = add_weight(edits, context, &layer, &place, pair, doubled, err);
    if (!status && *placed && from->tensor_b_bias != ADAPTER_NO_TENSOR)
        status = add_bias(edits, context, &layer, pair, bias, err);
out:
    text_release(&name);
    return status;
}

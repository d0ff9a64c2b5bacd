#include "adapter/experts.h"

#include "adapter/edits_find.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *quote(char buf[QUOTED_BYTES], const char *text)
{
    return error_quote(buf, QUOTED_BYTES, text, strlen(text));
}

/* With repeated layers the adapter counts the new ones. */
static int find_layer(struct expert_pair *out, const struct adapter_replicas *replicas,
                      const char *module, struct error *err)
{
    struct text name = { 0 };
    char quoted[QUOTED_BYTES];
    uint64_t layer = 0;
    size_t begin;
    size_t end;

    if (!replicas || !replicas->count ||
        !adapter_name_layer(module, strlen(module), &begin, &end)) {
        text_adds(&name, module);
    } else {
        for (size_t i = begin; i < end && layer < replicas->count; i++)
            layer = layer * 10 + (uint64_t)(module[i] - '0');
        if (layer >= replicas->count)
            return error_set(err, ERR_MISMATCH,
                             "module '%s' is in a layer beyond the %" PRIu64
                             " that layer_replication makes",
                             quote(quoted, module), replicas->count);
        for (uint64_t i = 0; i < layer; i++)
            out->replica += replicas->base_layer[i] == replicas->base_layer[layer];
        text_add(&name, module, begin);
        text_addf(&name, "%" PRIu64 "%s", replicas->base_layer[layer], module + end);
    }
    out->module = text_take(&name);
    return out->module ? 0 : error_no_memory(err, "a module name");
}

int expert_pair_init(struct expert_pair *out, const struct edits_context *context, uint32_t index,
                     struct error *err)
{
    const struct st_header *header = &context->adapter->header;
    const struct adapter_pair *pair = &context->adapter->pairs[index];
    const struct st_tensor *a = &header->tensors[pair->tensor_a];
    const struct st_tensor *b = &header->tensors[pair->tensor_b];

    *out = (struct expert_pair){ .context = context, .pair = pair, .index = index };
    if (a->shape_count >= 2 && b->shape_count >= 2) {
        out->rows = st_shape(header, a)[0];
        out->in = st_shape(header, a)[1];
        out->out = st_shape(header, b)[0];
    }
    return find_layer(out, context->replicas, pair->module, err);
}

void expert_pair_release(struct expert_pair *pair)
{
    free(pair->module);
    *pair = (struct expert_pair){ 0 };
}

int expert_refuse_shape(const struct expert_pair *pair, struct model_ref ref, struct error *err)
{
    const struct model *model = pair->context->model;
    struct text shape = edits_shape_text(model_header(model, ref), model_tensor(model, ref));
    char quoted[2][QUOTED_BYTES];

    error_set(err, ERR_MISMATCH,
              "tensor '%s' of the base has shape %s, but the factors of module '%s' make "
              "[%" PRIu64 ", %" PRIu64 "] for each expert",
              edits_quote_ref(quoted[0], model, ref), shape.failed ? "" : shape.data,
              quote(quoted[1], pair->pair->module), pair->out, pair->in);
    text_release(&shape);
    return err->code;
}

int expert_refuse_extras(const struct expert_pair *pair, struct error *err)
{
    const struct adapter_pair *p = pair->pair;
    const char *what = NULL;
    char quoted[QUOTED_BYTES];

    if (p->tensor_magnitude != ADAPTER_NO_TENSOR)
        what = "a DoRA magnitude";
    else if (p->tensor_b_bias != ADAPTER_NO_TENSOR)
        what = "a bias of factor B";
    else if (p->tensor_base != ADAPTER_NO_TENSOR)
        what = "a copy of the base's tensor";
    if (!what)
        return 0;
    return error_set(err, ERR_FORMAT,
                     "module '%s' has %s, which cannot be folded into experts that the base keeps "
                     "fused or under other names",
                     quote(quoted, p->module), what);
}

struct expert_delta expert_delta_make(const struct expert_pair *pair, uint32_t rank, double scale,
                                      uint64_t first_a, uint64_t first_b, uint64_t rank_stride)
{
    return (struct expert_delta){ .left = { .tensor = pair->pair->tensor_b,
                                            .blocks = 1,
                                            .offset = first_b,
                                            .index_stride = pair->rows,
                                            .rank_stride = rank_stride,
                                            .step = 1,
                                            .count = pair->out },
                                  .right = { .tensor = pair->pair->tensor_a,
                                             .blocks = 1,
                                             .offset = first_a * pair->in,
                                             .index_stride = 1,
                                             .rank_stride = pair->in,
                                             .step = 1,
                                             .count = pair->in },
                                  .rank = rank,
                                  .scale = scale };
}

struct expert_delta expert_delta_transpose(const struct expert_delta *delta)
{
    struct expert_delta transposed = *delta;

    transposed.left = delta->right;
    transposed.right = delta->left;
    return transposed;
}

struct expert_delta expert_delta_rows(const struct expert_delta *delta, uint64_t first,
                                      uint64_t count)
{
    struct expert_delta rows = *delta;

    rows.left.offset += first * rows.left.index_stride;
    rows.left.count = count;
    return rows;
}

int expert_add_edit(struct adapter_edits *edits, const struct expert_pair *pair,
                    struct model_ref ref, uint64_t row_first, uint64_t row_count,
                    const struct expert_delta *delta, struct error *err)
{
    const struct st_tensor *tensor = model_tensor(pair->context->model, ref);
    const uint64_t *shape = st_shape(model_header(pair->context->model, ref), tensor);
    uint64_t cols = shape[tensor->shape_count - 1];
    int status = edits_check_dtype(pair->context->model, ref, err);

    if (status)
        return status;
    return edits_add(edits,
                     &(struct adapter_edit){ .kind = EDIT_DELTA,
                                             .tensor = ref,
                                             .replica = pair->replica,
                                             .pair = pair->index,
                                             .source = ADAPTER_NO_TENSOR,
                                             .rows = tensor->element_count / cols,
                                             .cols = cols,
                                             .row_first = row_first,
                                             .row_count = row_count,
                                             .left = delta->left,
                                             .right = delta->right,
                                             .rank = delta->rank,
                                             .scale = delta->scale,
                                             .magnitude = ADAPTER_NO_TENSOR },
                     err);
}

#include "adapter/edits_find.h"

#include "adapter/naming.h"
#include "adapter/tied.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *edits_quote_ref(char buf[QUOTED_BYTES], const struct model *model, struct model_ref ref)
{
    const struct st_tensor *tensor = model_tensor(model, ref);

    return error_quote(buf, QUOTED_BYTES, st_name(model_header(model, ref), tensor),
                       tensor->name_bytes);
}

struct text edits_shape_text(const struct st_header *header, const struct st_tensor *tensor)
{
    const uint64_t *shape = st_shape(header, tensor);
    struct text text = { 0 };

    text_adds(&text, "[");
    for (size_t i = 0; i < tensor->shape_count; i++)
        text_addf(&text, "%s%" PRIu64, i ? ", " : "", shape[i]);
    text_adds(&text, "]");
    return text;
}

int edits_check_dtype(const struct model *model, struct model_ref ref, struct error *err)
{
    enum dtype dtype = (enum dtype)model_tensor(model, ref)->dtype;
    char quoted[QUOTED_BYTES];

    if (dtype_is_computed(dtype))
        return 0;
    return error_set(err, ERR_FORMAT,
                     "tensor '%s' of the base is stored as %s: a quantised base is not supported "
                     "by this version, so give the BF16, F16 or F32 model that it was made from",
                     edits_quote_ref(quoted, model, ref), dtype_name(dtype));
}

/* The layer's number in the new model becomes that in the base; *replica: which copy it is. */
static int add_base_name(struct text *out, uint32_t *replica, const struct edits_context *context,
                         const char *name, struct error *err)
{
    const struct adapter_replicas *replicas = context->replicas;
    size_t bytes = strlen(name);
    uint64_t layer = 0;
    size_t begin;
    size_t end;
    char quoted[QUOTED_BYTES];

    *replica = 0;
    if (!replicas->count || !adapter_name_layer(name, bytes, &begin, &end)) {
        text_adds(out, name);
        return out->failed ? error_no_memory(err, "a tensor name") : 0;
    }
    for (size_t at = begin; at < end && layer < replicas->count; at++)
        layer = layer * 10 + (uint64_t)(name[at] - '0');
    if (layer >= replicas->count)
        return error_set(err, ERR_MISMATCH,
                         "'%s' is in a layer that the %" PRIu64 " layers that "
                         "'layer_replication' makes do not have",
                         error_quote(quoted, sizeof(quoted), name, bytes), replicas->count);
    for (uint64_t i = 0; i < layer; i++)
        *replica += replicas->base_layer[i] == replicas->base_layer[layer];
    text_add(out, name, begin);
    text_addf(out, "%" PRIu64, replicas->base_layer[layer]);
    text_adds(out, name + end);
    return out->failed ? error_no_memory(err, "a tensor name") : 0;
}

int edits_refuse_unknown(const struct edits_context *context, const char *name, struct error *err)
{
    struct text base_name = { 0 };
    uint32_t replica;

    if (!add_base_name(&base_name, &replica, context, name, err))
        naming_refuse_unknown(context->model, base_name.data, base_name.bytes, err);
    text_release(&base_name);
    return err->code;
}

/* The head of a base that holds only the embedding. */
static int find_tied_head(struct edits_place *out, const struct edits_context *context,
                          const char *name,
                          bool (*fits)(const void *wanted, const struct st_header *header,
                                       const struct st_tensor *tensor),
                          const void *wanted, struct error *err)
{
    const struct tied_uses *uses = context->uses;
    const struct model *model = context->model;

    if (adapter_tensor_use(name, strlen(name)) != EDIT_HEAD)
        return 0;
    for (size_t i = 0; i < uses->embedding_count && i < TIED_USES_MAX; i++) {
        struct model_ref ref = uses->embeddings[i];

        if (!tied_is_shared(uses, model, ref))
            continue;
        out->tensor = ref;
        if (!fits(wanted, model_header(model, ref), model_tensor(model, ref))) {
            out->answer = EDITS_OTHER_SHAPE;
            continue;
        }
        out->answer = EDITS_FOUND;
        out->side = EDIT_HEAD;
        return tied_head_name(&out->new_name, model, ref, context->options->facts, err);
    }
    return 0;
}

int edits_find(struct edits_place *out, const struct edits_context *context, const char *name,
               bool (*fits)(const void *wanted, const struct st_header *header,
                            const struct st_tensor *tensor),
               const void *wanted, struct error *err)
{
    const struct model *model = context->model;
    struct naming_found found[NAMING_FOUND_MAX];
    struct text base_name = { 0 };
    size_t found_count = 0;
    size_t good_count = 0;
    int status;

    *out = (struct edits_place){ .answer = EDITS_NOT_THERE };
    status = add_base_name(&base_name, &out->replica, context, name, err);
    if (!status)
        status = naming_find(found, &found_count, model, base_name.data, base_name.bytes, err);
    if (status)
        goto out;
    if (found_count) {
        out->answer = EDITS_OTHER_SHAPE;
        out->tensor = found[0].ref;
    }
    for (size_t i = 0; i < found_count; i++) {
        if (fits(wanted, model_header(model, found[i].ref), model_tensor(model, found[i].ref)))
            found[good_count++] = found[i];
    }
    if (good_count > 1) {
        status = naming_refuse_several(model, base_name.data, base_name.bytes, found, good_count,
                                       err);
    } else if (good_count) {
        out->answer = EDITS_FOUND;
        out->tensor = found[0].ref;
        if (tied_is_shared(context->uses, model, out->tensor)) {
            out->side = EDIT_EMBEDDING;
            status = tied_head_name(&out->new_name, model, out->tensor, context->options->facts,
                                    err);
        }
    } else {
        status = find_tied_head(out, context, name, fits, wanted, err);
    }
out:
    text_release(&base_name);
    return status;
}

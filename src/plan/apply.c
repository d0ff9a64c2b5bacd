/*
 * apply.c - what the edits of one tensor make of it: source, patches, targets
 */
#include "plan/plan_internal.h"

#include <stdlib.h>
#include <string.h>

int plan_too_large(const struct plan_tensor *tensor, struct error *err)
{
    char quoted[QUOTED_BYTES];

    return error_set(err, ERR_FORMAT, "tensor '%s' is too large as %s",
                     error_quote(quoted, sizeof(quoted), tensor->name, tensor->name_bytes),
                     dtype_name((enum dtype)tensor->dtype_out));
}

static uint32_t input_of(const struct plan_maker *maker, const struct plan_match *match)
{
    return (uint32_t)(maker->model->shard_count + match->adapter);
}

/*
 * Can workers read the whole tensor from the adapter, so that a block of many small tensors keeps
 * its one read?  It must fit a block, and nothing but deltas may be on top of it.  A matrix that is
 * quantised on its way out is taken from reads, and so is a head that becomes a tensor of its own,
 * because its embedding may be taken from the same place.
 */
static bool is_for_workers(const struct plan_maker *maker, const struct plan_tensor *tensor,
                           const struct st_tensor *copy, const struct plan_match *list,
                           size_t count)
{
    if (tensor->out_bytes >= PLAN_BLOCK_BYTES)
        return false;
    if (count == 1 && list[0].edit->kind == EDIT_REPLACE)
        return true;
    if (copy->data_bytes >= PLAN_BLOCK_BYTES)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (list[i].edit->kind == EDIT_ROWS || list[i].head)
            return false;
    }
    return !maker->options->encode || tensor->shape_count != 2;
}

/* Let workers put the whole tensor, the adapter's `copy`, where the base's would have been read. */
static int patch_whole(const struct plan_maker *maker, struct plan_tensor *tensor,
                       const struct plan_match *match, bool has_deltas, struct error *err)
{
    const struct adapter *adapter = maker->adapters[match->adapter].adapter;
    const struct st_tensor *copy = &adapter->header.tensors[match->edit->source];
    enum dtype input = has_deltas ? copy->dtype : (enum dtype)tensor->dtype_out;

    if (tensor->in_bytes != tensor->out_bytes || tensor->quant ||
        dtype_bytes(input) != dtype_bytes((enum dtype)tensor->dtype_out))
        tensor->in_bytes = 0;
    tensor->quant = NULL;
    tensor->whole = has_deltas;
    if (has_deltas)
        tensor->dtype_in = (uint8_t)input;
    tensor->action = has_deltas ? PLAN_FOLD : PLAN_PATCH;
    return plan_add_whole(maker->plan, tensor, copy->element_count,
                          plan_tensor_factor(adapter, match->edit->source, input_of(maker, match)),
                          err);
}

/* Take the tensor from the adapter of one of its matches: shape and bytes. */
static int take_from_adapter(const struct plan_maker *maker, struct plan_tensor *tensor,
                             const struct plan_match *match, const struct plan_match *list,
                             size_t count, struct error *err)
{
    const struct adapter *adapter = maker->adapters[match->adapter].adapter;
    const struct st_tensor *copy = &adapter->header.tensors[match->edit->source];
    const uint64_t *shape = st_shape(&adapter->header, copy);
    uint64_t out_bytes;

    if (!mul_u64(copy->element_count, dtype_bytes((enum dtype)tensor->dtype_out), &out_bytes))
        return plan_too_large(tensor, err);
    if (tensor->shape_count != copy->shape_count ||
        (copy->shape_count &&
         memcmp(tensor->shape, shape, copy->shape_count * sizeof(*shape)) != 0)) {
        tensor->shape = plan_keep(maker->plan, shape, copy->shape_count * sizeof(*shape));
        tensor->shape_count = copy->shape_count;
        if (!tensor->shape)
            return error_no_memory(err, "a shape");
    }
    /* Where several adapters bring a copy, the last one counts. */
    tensor->out_bytes = out_bytes;
    tensor->whole = false;
    tensor->patch_count = 0;
    if (is_for_workers(maker, tensor, copy, list, count))
        return patch_whole(maker, tensor, match, count > 1 || match->edit->kind == EDIT_DELTA, err);
    tensor->quant = NULL;
    tensor->input = input_of(maker, match);
    tensor->in_offset = adapter->header.data_start + copy->data_offset;
    tensor->in_bytes = copy->data_bytes;
    tensor->dtype_in = (uint8_t)copy->dtype;
    tensor->action = tensor->dtype_in == tensor->dtype_out ? PLAN_COPY : PLAN_CONVERT;
    return 0;
}

/* Sort a tensor's matches: deltas to the front, in their order; returns how many. */
static size_t partition(struct plan_match *list, size_t count)
{
    size_t deltas = 0;

    for (size_t i = 0; i < count; i++) {
        struct plan_match match = list[i];

        if (match.edit->kind != EDIT_DELTA)
            continue;
        memmove(list + deltas + 1, list + deltas, (i - deltas) * sizeof(*list));
        list[deltas++] = match;
    }
    return deltas;
}

/*
 * The resized vocabulary, if this tensor is one whose first dimension grew or shrank.  The rows of
 * a task's head are its classes.
 */
static int note_vocabulary(struct plan *plan, const struct plan_tensor *tensor, uint64_t base_rows,
                           struct error *err)
{
    char quoted[QUOTED_BYTES];
    uint64_t rows = tensor->shape_count ? tensor->shape[0] : 0;

    if (rows == base_rows || adapter_tensor_use(tensor->name, tensor->name_bytes) == EDIT_UNTIED)
        return 0;
    if (plan->vocab_to && (plan->vocab_from != base_rows || plan->vocab_to != rows))
        return error_set(err, ERR_MISMATCH,
                         "tensor '%s' of the adapter has %llu rows, but another one resizes the "
                         "vocabulary from %llu to %llu",
                         error_quote(quoted, sizeof(quoted), tensor->name, tensor->name_bytes),
                         (unsigned long long)rows, (unsigned long long)plan->vocab_from,
                         (unsigned long long)plan->vocab_to);
    plan->vocab_from = base_rows;
    plan->vocab_to = rows;
    return 0;
}

static int refuse_rows(const struct plan_tensor *tensor, struct error *err)
{
    char quoted[QUOTED_BYTES];

    return error_set(err, ERR_FORMAT,
                     "tensor '%s' of the base is quantised, and the adapter replaces some of its "
                     "rows, which were trained in 16 bits: give the 16-bit base",
                     error_quote(quoted, sizeof(quoted), tensor->name, tensor->name_bytes));
}

/* How many classes there are, if this tensor is the last layer of a task's head. */
static void note_labels(struct plan *plan, const struct plan_tensor *tensor)
{
    static const char *const last_layers[] = { "score.weight", "classifier.weight",
                                               "classifier.out_proj.weight",
                                               "classification_head.out_proj.weight",
                                               "qa_outputs.weight" };

    for (size_t i = 0; i < sizeof(last_layers) / sizeof(last_layers[0]); i++) {
        if (tensor->shape_count == 2 && strlen(last_layers[i]) == tensor->name_bytes &&
            memcmp(last_layers[i], tensor->name, tensor->name_bytes) == 0)
            plan->labels = tensor->shape[0];
    }
}

/* Apply the matches of the newest tensor, which is filled in from the base. */
int plan_apply(const struct plan_maker *maker, struct plan_match *list, size_t count,
               struct error *err)
{
    struct plan *plan = maker->plan;
    uint64_t index = plan->tensor_count - 1;
    struct plan_tensor *tensor = &plan->tensors[index];
    size_t delta_count = partition(list, count);
    uint64_t base_rows = tensor->shape_count ? tensor->shape[0] : 0;
    bool is_new = tensor->in_bytes == 0 && tensor->action == PLAN_PATCH;
    int status = 0;

    for (size_t i = 0; i < count && !status; i++) {
        const struct adapter_edit *edit = list[i].edit;

        if (edit->kind == EDIT_REPLACE ||
            (edit->kind == EDIT_DELTA && edit->source != ADAPTER_NO_TENSOR))
            status = take_from_adapter(maker, tensor, &list[i], list, count, err);
    }
    if (!status && (is_new || (tensor->shape_count && tensor->shape[0] != base_rows)))
        note_labels(plan, tensor);
    if (!status && !is_new)
        status = note_vocabulary(plan, tensor, base_rows, err);
    for (size_t i = delta_count; i < count && !status; i++) {
        if (list[i].edit->kind == EDIT_ROWS && tensor->quant)
            status = refuse_rows(tensor, err);
        else if (list[i].edit->kind == EDIT_ROWS)
            status = plan_add_rows(plan, tensor, maker->adapters[list[i].adapter].adapter,
                                   list[i].edit, input_of(maker, &list[i]), err);
    }
    if (!status && delta_count) {
        tensor->action = PLAN_FOLD;
        status = plan_add_targets(plan, index, maker->adapters, list, delta_count, err);
    }
    return status;
}

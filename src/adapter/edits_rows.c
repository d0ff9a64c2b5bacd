#include "adapter/edits_internal.h"
#include "adapter/tied.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The other use of a tied tensor gets what `from` says, without its factors. */
static int add_for_other_side(struct adapter_edits *edits, size_t from, enum edit_kind kind,
                              struct error *err)
{
    struct adapter_edit edit = edits->list[from];
    size_t bytes = edit.row_list_count * sizeof(*edit.row_list);

    edit = (struct adapter_edit){ .kind = kind,
                                  .side = edit.side == EDIT_HEAD ? EDIT_EMBEDDING : EDIT_HEAD,
                                  .tensor = edit.tensor,
                                  .new_name = strdup(edit.new_name),
                                  .replica = edit.replica,
                                  .pair = edit.pair,
                                  .source = edit.source,
                                  .rows = edit.rows,
                                  .cols = edit.cols,
                                  .magnitude = ADAPTER_NO_TENSOR,
                                  .row_list_count = edit.row_list_count };
    if (bytes) {
        edit.row_list = malloc(bytes);
        edit.row_source = malloc(bytes);
    }
    if (!edit.new_name || (bytes && (!edit.row_list || !edit.row_source))) {
        free(edit.new_name);
        free(edit.row_list);
        free(edit.row_source);
        return error_no_memory(err, "an edit");
    }
    if (bytes) {
        memcpy(edit.row_list, edits->list[from].row_list, bytes);
        memcpy(edit.row_source, edits->list[from].row_source, bytes);
    }
    return edits_add(edits, &edit, err);
}

int edits_mirror_rows(struct adapter_edits *edits, struct error *err)
{
    size_t count = edits->count;
    bool head = false;

    for (size_t i = 0; i < count; i++)
        head |= edits->list[i].kind == EDIT_ROWS && edits->list[i].side == EDIT_HEAD;
    for (size_t i = 0; i < count && !head; i++) {
        if (edits->list[i].kind == EDIT_ROWS && edits->list[i].side == EDIT_EMBEDDING &&
            add_for_other_side(edits, i, EDIT_ROWS, err))
            return err->code;
    }
    return 0;
}

/* Rows that an edit gives to a whole tensor; 0: it gives none. */
static uint64_t rows_given(const struct adapter_edit *edit, const struct adapter *adapter)
{
    if (edit->kind == EDIT_ROWS || edit->source == ADAPTER_NO_TENSOR ||
        !adapter->header.tensors[edit->source].shape_count)
        return 0;
    return st_shape(&adapter->header, &adapter->header.tensors[edit->source])[0];
}

static int refuse_lost_rows(const struct adapter_edit *edit, const struct edits_context *context,
                            uint64_t rows, uint64_t base_rows, enum edit_side use,
                            struct error *err)
{
    bool head = use == EDIT_HEAD;
    char quoted[QUOTED_BYTES];

    return error_set(err, ERR_FORMAT,
                     "'%s' has %" PRIu64 " rows and the base %" PRIu64
                     ": the vocabulary was resized, but the %s of that size was not saved, so its "
                     "new rows are lost; give a base that was saved after it was resized",
                     edits_quote(quoted, context->adapter, edit), rows, base_rows,
                     head ? "input embedding" : "output head");
}

static bool is_tensor(const struct adapter_edit *edit, struct model_ref ref)
{
    return !edits_is_new(edit) && edit->tensor.shard == ref.shard &&
           edit->tensor.tensor == ref.tensor;
}

/* Does an edit of this side of the tensor give it so many rows?  *any: is there one at all. */
static bool has_edit(const struct adapter_edits *edits, const struct adapter *adapter,
                     struct model_ref ref, enum edit_side side, uint64_t rows, bool *any)
{
    *any = false;
    for (size_t i = 0; i < edits->count; i++) {
        const struct adapter_edit *edit = &edits->list[i];

        if (!is_tensor(edit, ref) || edit->side != side)
            continue;
        *any = true;
        if (rows_given(edit, adapter) == rows)
            return true;
    }
    return false;
}

static int complete(struct adapter_edits *edits, size_t index, const struct edits_context *context,
                    struct error *err)
{
    const struct model *model = context->model;
    const struct tied_uses *uses = context->uses;
    const struct adapter_edit *edit = &edits->list[index];
    const struct st_header *header = model_header(model, edit->tensor);
    const struct st_tensor *tensor = model_tensor(model, edit->tensor);
    enum edit_side use = adapter_tensor_use(st_name(header, tensor), tensor->name_bytes);
    uint64_t base_rows = tensor->shape_count ? st_shape(header, tensor)[0] : 0;
    uint64_t rows = rows_given(edit, context->adapter);
    bool head = edit->side == EDIT_HEAD || (!edit->side && use == EDIT_HEAD);
    const struct model_ref *others = head ? uses->embeddings : uses->heads;
    size_t count = head ? uses->embedding_count : uses->head_count;
    bool any;

    if (!rows || rows == base_rows || use == EDIT_UNTIED)
        return 0;
    if (edit->side != EDIT_UNTIED) {
        if (has_edit(edits, context->adapter, edit->tensor, head ? EDIT_EMBEDDING : EDIT_HEAD, rows,
                     &any))
            return 0;
        if (edit->kind == EDIT_DELTA && !any)
            return add_for_other_side(edits, index, EDIT_REPLACE, err);
        return refuse_lost_rows(edit, context, rows, base_rows, head ? EDIT_HEAD : EDIT_EMBEDDING,
                                err);
    }
    for (size_t i = 0; i < count && i < TIED_USES_MAX; i++) {
        const uint64_t *shape = st_shape(model_header(model, others[i]),
                                         model_tensor(model, others[i]));

        if (shape[0] == base_rows &&
            !has_edit(edits, context->adapter, others[i], EDIT_UNTIED, rows, &any))
            return refuse_lost_rows(edit, context, rows, base_rows, use, err);
    }
    return 0;
}

/* The rows of the output head, if an edit gives it others than the base's. */
static uint64_t find_head_rows(const struct adapter_edits *edits,
                               const struct edits_context *context, uint64_t base_rows)
{
    for (size_t i = 0; i < edits->count; i++) {
        const struct adapter_edit *edit = &edits->list[i];
        uint64_t rows = edits_is_new(edit) ? 0 : rows_given(edit, context->adapter);
        const struct st_header *header;
        const struct st_tensor *tensor;
        bool head = edit->side == EDIT_HEAD;

        if (!rows)
            continue;
        header = model_header(context->model, edit->tensor);
        tensor = model_tensor(context->model, edit->tensor);
        if (!edit->side)
            head = adapter_tensor_use(st_name(header, tensor), tensor->name_bytes) == EDIT_HEAD;
        if (head && tensor->shape_count && st_shape(header, tensor)[0] == base_rows &&
            rows != base_rows)
            return rows;
    }
    return base_rows;
}

static int check_head_bias(const struct adapter_edits *edits, const struct edits_context *context,
                           struct model_ref ref, struct error *err)
{
    const struct st_header *header = model_header(context->model, ref);
    const struct st_tensor *tensor = model_tensor(context->model, ref);
    uint64_t base_rows = st_shape(header, tensor)[0];
    uint64_t head_rows = find_head_rows(edits, context, base_rows);
    uint64_t rows = base_rows;
    char quoted[QUOTED_BYTES];

    for (size_t i = 0; i < edits->count; i++) {
        if (is_tensor(&edits->list[i], ref) && rows_given(&edits->list[i], context->adapter))
            rows = rows_given(&edits->list[i], context->adapter);
    }
    if (rows == head_rows)
        return 0;
    return error_set(
        err, ERR_FORMAT,
        "the output head gets %" PRIu64 " rows, but its bias '%s' %" PRIu64
        " elements: the vocabulary was resized, and what was saved of it is not "
        "whole; give a base that was saved after it was resized",
        head_rows, error_quote(quoted, sizeof(quoted), st_name(header, tensor), tensor->name_bytes),
        rows);
}

static int check_head_biases(const struct adapter_edits *edits, const struct edits_context *context,
                             struct error *err)
{
    const struct model *model = context->model;

    for (uint32_t s = 0; s < model->shard_count; s++) {
        const struct st_header *header = &model->shards[s].header;

        for (uint32_t t = 0; t < header->tensor_count; t++) {
            const struct st_tensor *tensor = &header->tensors[t];

            if (tensor->shape_count == 1 &&
                tied_is_head_bias(st_name(header, tensor), tensor->name_bytes) &&
                check_head_bias(edits, context, (struct model_ref){ s, t }, err))
                return err->code;
        }
    }
    return 0;
}

int edits_complete_rows(struct adapter_edits *edits, const struct edits_context *context,
                        struct error *err)
{
    size_t count = edits->count;

    for (size_t i = 0; i < count; i++) {
        if (!edits_is_new(&edits->list[i]) && complete(edits, i, context, err))
            return err->code;
    }
    return check_head_biases(edits, context, err);
}

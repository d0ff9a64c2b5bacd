#include "adapter/edits_internal.h"
#include "adapter/tied.h"
#include "base/bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *edits_quote(char buf[QUOTED_BYTES], const struct adapter *adapter,
                        const struct adapter_edit *edit)
{
    const struct st_tensor *tensor;

    if (edit->pair != ADAPTER_NO_TENSOR)
        return error_quote(buf, QUOTED_BYTES, adapter->pairs[edit->pair].module,
                           strlen(adapter->pairs[edit->pair].module));
    tensor = &adapter->header.tensors[edit->source];
    return error_quote(buf, QUOTED_BYTES, st_name(&adapter->header, tensor), tensor->name_bytes);
}

static int compare_numbers(uint64_t left, uint64_t right)
{
    return (left > right) - (left < right);
}

static bool is_new(const struct adapter_edit *edit)
{
    return edit->side == EDIT_UNTIED && edit->new_name;
}

/* By the thing that is edited: 0 if it is the same. */
static int compare_things(const struct adapter_edit *a, const struct adapter_edit *b)
{
    int order = compare_numbers(is_new(a), is_new(b));

    if (!order && is_new(a))
        order = strcmp(a->new_name, b->new_name);
    else if (!order)
        order = compare_numbers(a->tensor.shard, b->tensor.shard);
    if (!order && !is_new(a))
        order = compare_numbers(a->tensor.tensor, b->tensor.tensor);
    if (!order)
        order = compare_numbers(a->side == EDIT_HEAD, b->side == EDIT_HEAD);
    return order ? order : compare_numbers(a->replica, b->replica);
}

/* Of deltas of one tensor: by the elements that they can reach, then by rows. */
static int compare_edits(const void *left, const void *right)
{
    const struct adapter_edit *a = *(const struct adapter_edit *const *)left;
    const struct adapter_edit *b = *(const struct adapter_edit *const *)right;
    int order = compare_things(a, b);

    if (!order)
        order = compare_numbers(a->kind, b->kind);
    if (!order)
        order = compare_numbers(a->left.first, b->left.first);
    if (!order)
        order = compare_numbers(a->right.first, b->right.first);
    return order ? order : compare_numbers(a->row_first, b->row_first);
}

/* Of neighbours in that order. */
static bool is_twice(const struct adapter_edit *a, const struct adapter_edit *b)
{
    if (compare_things(a, b))
        return false;
    /* A tensor that is replaced may get new rows or a delta besides. */
    if (a->kind != b->kind)
        return false;
    return a->kind != EDIT_DELTA ||
           (a->left.first == b->left.first && a->right.first == b->right.first &&
            b->row_first - a->row_first < a->row_count);
}

int edits_check_twice(const struct adapter_edits *edits, const struct adapter *adapter,
                      struct error *err)
{
    const struct adapter_edit **sorted = calloc(edits->count + 1, sizeof(*sorted));
    char quoted[2][QUOTED_BYTES];
    int status = 0;

    if (!sorted)
        return error_no_memory(err, "the list of edits");
    for (size_t i = 0; i < edits->count; i++)
        sorted[i] = &edits->list[i];
    qsort(sorted, edits->count, sizeof(*sorted), compare_edits);
    for (size_t i = 1; i < edits->count && !status; i++) {
        if (is_twice(sorted[i - 1], sorted[i]))
            status = error_set(err, ERR_MISMATCH,
                               "'%s' and '%s' both change one tensor of the base",
                               edits_quote(quoted[0], adapter, sorted[i - 1]),
                               edits_quote(quoted[1], adapter, sorted[i]));
    }
    free(sorted);
    return status;
}

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
    return !is_new(edit) && edit->tensor.shard == ref.shard && edit->tensor.tensor == ref.tensor;
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

int edits_complete_rows(struct adapter_edits *edits, const struct edits_context *context,
                        struct error *err)
{
    size_t count = edits->count;

    for (size_t i = 0; i < count; i++) {
        if (!is_new(&edits->list[i]) && complete(edits, i, context, err))
            return err->code;
    }
    return 0;
}

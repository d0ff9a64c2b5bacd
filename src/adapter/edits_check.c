#include "adapter/edits_internal.h"
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

/* By the thing that is edited: 0 if it is the same. */
static int compare_things(const struct adapter_edit *a, const struct adapter_edit *b)
{
    int order = compare_numbers(edits_is_new(a), edits_is_new(b));

    if (!order && edits_is_new(a))
        order = strcmp(a->new_name, b->new_name);
    else if (!order)
        order = compare_numbers(a->tensor.shard, b->tensor.shard);
    if (!order && !edits_is_new(a))
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

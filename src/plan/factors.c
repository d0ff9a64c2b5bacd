/*
 * factors.c - where the factors of an edit lie, and which of them are repacked
 *
 * The data plane reads B [rows][rank] and A [rank][cols], dense.  A factor that lies
 * so in the adapter is read from there; any other is written once, as fp32 and in
 * this order, to a file beside the output before the work begins.
 */
#include "plan/plan_internal.h"

#include "base/array.h"

#include <string.h>

struct plan_factor plan_tensor_factor(const struct adapter *adapter, uint32_t tensor,
                                      uint32_t input)
{
    const struct st_tensor *source = &adapter->header.tensors[tensor];

    return (struct plan_factor){ .input = input,
                                 .offset = adapter->header.data_start + source->data_offset,
                                 .dtype = (enum dtype)source->dtype };
}

static bool is_dense(const struct factor_view *view, uint64_t count, uint32_t rank, bool is_right)
{
    if (!factor_view_is_plain(view, count))
        return false;
    if (is_right)
        return view->index_stride == 1 && (rank == 1 || view->rank_stride == count);
    return (rank == 1 || view->rank_stride == 1) && (count == 1 || view->index_stride == rank);
}

static int add_factor(struct plan *plan, const struct adapter *adapter,
                      const struct factor_view *view, uint64_t count, uint32_t rank, bool is_right,
                      uint32_t input, struct plan_factor *out, struct error *err)
{
    struct plan_repack repack = { .input = input,
                                  .view = *view,
                                  .count = count,
                                  .rank = rank,
                                  .is_right = is_right,
                                  .offset = plan->repack_bytes };
    struct plan_factor source = { .dtype = DTYPE_F32 };
    struct plan_repack *repacks;
    uint64_t bytes;

    if (view->tensor != EDIT_ALL_ONES)
        source = plan_tensor_factor(adapter, view->tensor, input);
    if (is_dense(view, count, rank, is_right)) {
        *out = source;
        out->offset += view->offset * dtype_bytes(source.dtype);
        return 0;
    }
    repacks = array_next(plan->repacks, plan->repack_count, &plan->repack_capacity,
                         sizeof(*repacks));
    if (!repacks)
        return error_no_memory(err, "the list of repacked factors");
    plan->repacks = repacks;
    repack.dtype = source.dtype;
    repack.tensor_offset = source.offset;
    if (!mul_u64(count, rank * sizeof(float), &bytes) ||
        !add_u64(plan->repack_bytes, bytes, &plan->repack_bytes))
        return error_set(err, ERR_FORMAT, "a factor of rank %u is too large", rank);
    plan->repacks[plan->repack_count++] = repack;
    *out = (struct plan_factor){ PLAN_REPACKED, repack.offset, DTYPE_F32 };
    return 0;
}

int plan_add_factors(struct plan *plan, const struct plan_adapter *adapter,
                     const struct adapter_edit *edit, uint32_t input, struct plan_factor *left,
                     struct plan_factor *right, struct error *err)
{
    char quoted[QUOTED_BYTES];

    if (edit->rank > FOLD_RANK_MAX)
        return error_set(err, ERR_FORMAT, "adapter '%s': a factor of rank %u, of at most %u",
                         error_quote(quoted, sizeof(quoted), adapter->adapter->name,
                                     strlen(adapter->adapter->name)),
                         edit->rank, FOLD_RANK_MAX);
    if (add_factor(plan, adapter->adapter, &edit->left, edit->row_count, edit->rank, false, input,
                   left, err))
        return err->code;
    return add_factor(plan, adapter->adapter, &edit->right, edit->cols, edit->rank, true, input,
                      right, err);
}

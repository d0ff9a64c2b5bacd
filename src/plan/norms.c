/*
 * norms.c - which norms of DoRA are made before the work
 *
 * A worker that has a whole row makes its norm itself.  What it cannot have: a row
 * that a block boundary cuts, a column (its norm needs every row), and a row whose
 * target goes panel by panel or does not fit a tile.  These are made first, by
 * reading what they need once more.
 */
#include "plan/plan_internal.h"

#include "base/array.h"

#include <inttypes.h>

static bool has_norms(const struct plan *plan, const struct plan_target *target, bool *of_cols)
{
    bool found = false;

    *of_cols = false;
    for (uint32_t i = 0; i < target->delta_count; i++) {
        const struct plan_delta *delta = &plan->deltas[target->delta_first + i];

        found |= delta->norm != EDIT_NO_NORM;
        *of_cols |= delta->norm == EDIT_NORM_OF_COLS;
    }
    return found;
}

/* Norms are read into a tile, where a column of codes has to fit as a whole. */
static int check_columns(const struct plan *plan, const struct plan_target *target,
                         struct error *err)
{
    const struct plan_tensor *tensor = &plan->tensors[target->tensor];
    uint64_t first = target->row_first * target->cols;
    uint64_t bytes = 0;
    char quoted[QUOTED_BYTES];

    if (tensor->quant && quant_is_strided(&tensor->quant->matrix))
        bytes = plan_strided_bytes(tensor, first, first + 1);
    if (bytes <= PLAN_TILE_FLOATS * sizeof(float))
        return 0;
    return error_set(err, ERR_FORMAT,
                     "tensor '%s' of the base has %" PRIu64 " bytes of codes in a column, and "
                     "DoRA needs no more than %" PRIu64 " there",
                     error_quote(quoted, sizeof(quoted), tensor->name, tensor->name_bytes), bytes,
                     PLAN_TILE_FLOATS * sizeof(float));
}

/* All factors of a target get places in the table. */
static void set_all(struct plan *plan, struct plan_target *target)
{
    const struct plan_tensor *tensor = &plan->tensors[target->tensor];

    target->norms = PLAN_NORMS_ALL;
    for (uint32_t i = 0; i < target->delta_count; i++) {
        struct plan_delta *delta = &plan->deltas[target->delta_first + i];

        delta->norms = plan->norm_count;
        if (delta->norm == EDIT_NORM_OF_COLS)
            plan->sum_count = max_u64(plan->sum_count, target->cols);
        if (delta->norm != EDIT_NO_NORM)
            plan->norm_count += delta->norm == EDIT_NORM_OF_COLS ? target->cols : target->rows;
    }
    plan->bytes_read_twice += target->rows * target->cols *
                              dtype_bytes((enum dtype)tensor->dtype_in);
}

static int add_cut(struct plan *plan, struct plan_target *target, size_t *capacity, uint64_t row,
                   struct error *err)
{
    struct plan_cut *cuts;

    if (target->cut_count && plan->cuts[plan->cut_count - 1].row == row)
        return 0; /* a row longer than a block */
    cuts = array_next(plan->cuts, plan->cut_count, capacity, sizeof(*cuts));
    if (!cuts)
        return error_no_memory(err, "the rows that blocks cut");
    plan->cuts = cuts;
    plan->cuts[plan->cut_count++] = (struct plan_cut){ row, plan->norm_count };
    plan->norm_count += target->delta_count;
    target->cut_count++;
    return 0;
}

static int set_cuts(struct plan *plan, struct plan_target *target, size_t *capacity,
                    struct error *err)
{
    const struct plan_tensor *tensor = &plan->tensors[target->tensor];
    uint64_t row_bytes = target->cols * dtype_bytes((enum dtype)tensor->dtype_out);
    uint64_t begin = tensor->out_offset + target->row_first * row_bytes;
    uint64_t first, last;

    target->norms = PLAN_NORMS_CUT;
    target->cut_first = (uint32_t)plan->cut_count;
    target->cut_count = 0;
    plan_target_blocks(plan, target, &first, &last);
    for (uint64_t block = first + 1; block <= last; block++) {
        uint64_t inside = block * PLAN_BLOCK_BYTES - begin;

        if (inside % row_bytes != 0 && add_cut(plan, target, capacity, inside / row_bytes, err))
            return err->code;
    }
    return 0;
}

int plan_set_norms(struct plan *plan, struct error *err)
{
    size_t capacity = plan->cut_capacity;
    int status = 0;

    plan->norm_count = 0;
    plan->sum_count = 0;
    plan->cut_count = 0;
    plan->bytes_read_twice = 0;
    for (size_t i = 0; i < plan->target_count && !status; i++) {
        struct plan_target *target = &plan->targets[i];
        bool of_cols;

        target->norms = PLAN_NORMS_NONE;
        if (!has_norms(plan, target, &of_cols))
            continue;
        if (check_columns(plan, target, err))
            return err->code;
        if (of_cols || target->cols > PLAN_TILE_FLOATS || plan_needs_panels(target) ||
            plan->tensors[target->tensor].encoding || plan->tensors[target->tensor].roundtrip ||
            (plan->tensors[target->tensor].quant && target->cols > PLAN_DECODED_FLOATS))
            set_all(plan, target);
        else
            status = set_cuts(plan, target, &capacity, err);
    }
    plan->cut_capacity = capacity;
    return status;
}

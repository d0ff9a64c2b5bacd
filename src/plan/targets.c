/*
 * targets.c - the rows of a tensor that the same deltas change, and patches
 *
 * Edits may cover different rows of one tensor (the experts of a fused one, gate
 * above up).  Their borders cut the tensor into targets, and in each target all
 * deltas cover all rows, which is what the data plane computes with.
 */
#include "plan/plan_internal.h"

#include "base/array.h"

#include <stdlib.h>

/* The factors of a match, found once though several targets may use them. */
struct covered {
    const struct plan_match *match;
    struct plan_factor left;
    struct plan_factor right;
};

static int compare_borders(const void *left, const void *right)
{
    return compare_u64(*(const uint64_t *)left, *(const uint64_t *)right);
}

/* The delta of an edit on rows that begin `skipped` rows below the edit's first. */
static int add_delta(struct plan *plan, struct plan_target *target,
                     const struct plan_adapter *adapter, const struct covered *covered,
                     uint64_t skipped, uint32_t input, struct error *err)
{
    const struct adapter_edit *edit = covered->match->edit;
    struct plan_delta *deltas = array_next(plan->deltas, plan->delta_count, &plan->delta_capacity,
                                           sizeof(*deltas));
    struct plan_delta delta = { .a = covered->right,
                                .b = covered->left,
                                .rank = edit->rank,
                                .scale = (float)(adapter->weight * edit->scale),
                                .norm = edit->norm };

    if (!deltas)
        return error_no_memory(err, "the deltas");
    plan->deltas = deltas;
    delta.b.offset += skipped * edit->rank * dtype_bytes(delta.b.dtype);
    if (edit->norm == EDIT_NORM_OF_COLS && target->rows != edit->rows)
        return error_set(err, ERR_MISMATCH,
                         "adapter '%s': the norms of columns of a tensor need all of its rows, of "
                         "which another adapter changes some in another way",
                         adapter->adapter->name);
    if (edit->norm != EDIT_NO_NORM) {
        delta.magnitude = plan_tensor_factor(adapter->adapter, edit->magnitude, input);
        if (edit->norm == EDIT_NORM_OF_ROWS)
            delta.magnitude.offset += skipped * dtype_bytes(delta.magnitude.dtype);
    }
    plan->deltas[plan->delta_count++] = delta;
    target->delta_count++;
    target->rank_sum += edit->rank;
    return 0;
}

/* The target of the rows [first, end), if any edit covers them. */
static int add_target(struct plan *plan, uint64_t tensor, const struct plan_adapter *adapters,
                      const struct covered *covered, size_t count, uint64_t first, uint64_t end,
                      struct error *err)
{
    struct plan_target target = { .tensor = tensor,
                                  .row_first = first,
                                  .rows = end - first,
                                  .cols = covered[0].match->edit->cols,
                                  .delta_first = (uint32_t)plan->delta_count,
                                  .resident = PLAN_NO_TARGET };
    struct plan_target *targets;

    /* Sorted by first row, then adapter: those that cover these rows come in adapters' order only
     * within one first row, so they are taken adapter by adapter. */
    for (uint32_t adapter = 0, next = 0; next != UINT32_MAX; adapter = next) {
        next = UINT32_MAX;
        for (size_t i = 0; i < count; i++) {
            const struct adapter_edit *edit = covered[i].match->edit;
            uint32_t of = covered[i].match->adapter;

            if (edit->row_first > first || edit->row_first + edit->row_count <= first)
                continue;
            if (of > adapter && of < next)
                next = of;
            if (of == adapter &&
                add_delta(plan, &target, &adapters[of], &covered[i], first - edit->row_first,
                          (uint32_t)(plan->shard_count + of), err))
                return err->code;
        }
    }
    if (target.delta_count == 0)
        return 0;
    targets = array_next(plan->targets, plan->target_count, &plan->target_capacity,
                         sizeof(*targets));
    if (!targets)
        return error_no_memory(err, "the targets");
    plan->targets = targets;
    plan->targets[plan->target_count++] = target;
    plan->tensors[tensor].target_count++;
    return 0;
}

/* First and last rows of all edits, ascending; returns their number. */
static size_t find_borders(uint64_t *borders, const struct plan_match *matches, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        borders[2 * i] = matches[i].edit->row_first;
        borders[2 * i + 1] = matches[i].edit->row_first + matches[i].edit->row_count;
    }
    qsort(borders, 2 * count, sizeof(*borders), compare_borders);
    for (size_t i = 0; i < 2 * count; i++) {
        if (kept == 0 || borders[i] != borders[kept - 1])
            borders[kept++] = borders[i];
    }
    return kept;
}

int plan_add_targets(struct plan *plan, uint64_t tensor, const struct plan_adapter *adapters,
                     const struct plan_match *matches, size_t count, struct error *err)
{
    struct covered *covered = calloc(count, sizeof(*covered));
    uint64_t *borders = calloc(2 * count, sizeof(*borders));
    size_t border_count, first = 0;
    int status = 0;

    if (!covered || !borders) {
        status = error_no_memory(err, "the targets");
        goto out;
    }
    for (size_t i = 0; i < count && !status; i++) {
        covered[i].match = &matches[i];
        status = plan_add_factors(plan, &adapters[matches[i].adapter], matches[i].edit,
                                  (uint32_t)(plan->shard_count + matches[i].adapter),
                                  &covered[i].left, &covered[i].right, err);
    }
    border_count = find_borders(borders, matches, count);
    plan->tensors[tensor].target_first = (uint32_t)plan->target_count;
    for (size_t i = 0; i + 1 < border_count && !status; i++) {
        size_t end = first;

        /* Only edits in [first, end) can cover these rows: they are sorted by first row. */
        while (first < count &&
               matches[first].edit->row_first + matches[first].edit->row_count <= borders[i])
            first++;
        end = first;
        while (end < count && matches[end].edit->row_first <= borders[i])
            end++;
        if (end > first)
            status = add_target(plan, tensor, adapters, covered + first, end - first, borders[i],
                                borders[i + 1], err);
    }
out:
    free(covered);
    free(borders);
    return status;
}

static int add_patch(struct plan *plan, struct plan_tensor *tensor, uint64_t first, uint64_t count,
                     struct plan_factor source, struct error *err)
{
    struct plan_patch *patches = array_next(plan->patches, plan->patch_count, &plan->patch_capacity,
                                            sizeof(*patches));

    if (!patches)
        return error_no_memory(err, "the patches");
    plan->patches = patches;
    if (tensor->patch_count == 0)
        tensor->patch_first = (uint32_t)plan->patch_count;
    tensor->patch_count++;
    plan->patches[plan->patch_count++] = (struct plan_patch){ first, count, source };
    return 0;
}

int plan_add_whole(struct plan *plan, struct plan_tensor *tensor, uint64_t elements,
                   struct plan_factor source, struct error *err)
{
    return elements ? add_patch(plan, tensor, 0, elements, source, err) : 0;
}

int plan_add_rows(struct plan *plan, struct plan_tensor *tensor, const struct adapter *adapter,
                  const struct adapter_edit *edit, uint32_t input, struct error *err)
{
    struct plan_factor base = plan_tensor_factor(adapter, edit->source, input);

    for (size_t i = 0; i < edit->row_list_count;) {
        struct plan_factor source = base;
        size_t run = 1;

        while (i + run < edit->row_list_count &&
               edit->row_list[i + run] == edit->row_list[i] + run &&
               edit->row_source[i + run] == edit->row_source[i] + run)
            run++;
        source.offset += edit->row_source[i] * edit->cols * dtype_bytes(base.dtype);
        if (add_patch(plan, tensor, edit->row_list[i] * edit->cols, run * edit->cols, source, err))
            return err->code;
        i += run;
    }
    return 0;
}

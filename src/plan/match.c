#include "plan/plan_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t plan_model_number(const struct model *model, struct model_ref ref)
{
    uint64_t number = ref.tensor;

    for (uint32_t i = 0; i < ref.shard; i++)
        number += model->shards[i].header.tensor_count;
    return number;
}

static const char *quote_adapter(char quoted[QUOTED_BYTES], const struct adapter *adapter)
{
    return error_quote(quoted, QUOTED_BYTES, adapter->name, strlen(adapter->name));
}

/* What an edit is about, for a sentence: a module, or a tensor of the adapter. */
static const char *quote_edit(char quoted[QUOTED_BYTES], const struct adapter *adapter,
                              const struct adapter_edit *edit)
{
    const struct st_tensor *tensor;

    if (edit->pair != ADAPTER_NO_TENSOR) {
        const char *module = adapter->pairs[edit->pair].module;

        return error_quote(quoted, QUOTED_BYTES, module, strlen(module));
    }
    tensor = &adapter->header.tensors[edit->source];
    return error_quote(quoted, QUOTED_BYTES, st_name(&adapter->header, tensor), tensor->name_bytes);
}

/* A weight scales deltas; it must leave a number, and there must be nothing else to scale. */
static int check_weight(const struct plan_adapter *adapter, const struct adapter_edit *edit,
                        struct error *err)
{
    bool is_delta = edit->kind == EDIT_DELTA;
    char name[QUOTED_BYTES];
    char quoted[QUOTED_BYTES];

    if (is_delta ? isfinite((float)(adapter->weight * edit->scale)) : adapter->weight == 1)
        return 0;
    quote_adapter(name, adapter->adapter);
    quote_edit(quoted, adapter->adapter, edit);
    if (!is_delta)
        return error_set(err, ERR_USAGE,
                         "adapter '%s': a weight of %g means nothing for '%s', which replaces "
                         "weights of the base; give the adapter without a weight",
                         name, adapter->weight, quoted);
    return error_set(err, ERR_USAGE,
                     "adapter '%s': the weight %g times the scale %g of module '%s' is beyond the "
                     "range of fp32 (3.4e38): give a smaller weight",
                     name, adapter->weight, edit->scale, quoted);
}

static int compare_matches(const void *left, const void *right)
{
    const struct plan_match *x = left;
    const struct plan_match *y = right;
    int order = x->head - y->head;

    if (order == 0)
        order = compare_u64(x->tensor, y->tensor);
    if (order == 0)
        order = compare_u64(x->replica, y->replica);
    if (order == 0 && x->tensor == PLAN_NEW_TENSOR)
        order = strcmp(x->edit->new_name, y->edit->new_name);
    if (order == 0)
        order = compare_u64(x->edit->row_first, y->edit->row_first);
    if (order == 0)
        order = compare_u64(x->adapter, y->adapter);
    return order ? order : (x->edit > y->edit) - (x->edit < y->edit);
}

static bool same_tensor(const struct plan_match *x, const struct plan_match *y)
{
    return x->head == y->head && x->tensor == y->tensor && x->replica == y->replica &&
           (x->tensor != PLAN_NEW_TENSOR || !strcmp(x->edit->new_name, y->edit->new_name));
}

/* What one adapter replaces, another one cannot change: whichever came first would be lost. */
static int check_alone(const struct plan_match *list, size_t count,
                       const struct plan_adapter *adapters, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count && list[i].edit->kind != EDIT_DELTA; k++) {
            const struct adapter *one = adapters[list[i].adapter].adapter;
            const struct adapter *other = adapters[list[k].adapter].adapter;
            char quoted[3][QUOTED_BYTES];

            if (list[i].adapter == list[k].adapter)
                continue;
            return error_set(err, ERR_MISMATCH,
                             "adapter '%s' replaces with '%s' what adapter '%s' changes too; they "
                             "cannot be folded together",
                             quote_adapter(quoted[0], one),
                             quote_edit(quoted[1], one, list[i].edit),
                             quote_adapter(quoted[2], other));
        }
    }
    return 0;
}

static int check_conflicts(const struct plan_matches *matches, const struct plan_adapter *adapters,
                           struct error *err)
{
    for (size_t first = 0; first < matches->count;) {
        size_t end = first + 1;

        while (end < matches->count && same_tensor(&matches->list[first], &matches->list[end]))
            end++;
        if (check_alone(matches->list + first, end - first, adapters, err))
            return err->code;
        first = end;
    }
    return 0;
}

static int make_edits(struct plan_matches *matches, const struct model *model,
                      const struct plan_adapter *adapters, size_t adapter_count,
                      const struct edit_options *options, const struct log *log, struct error *err)
{
    size_t count = 0;

    matches->edits = calloc(adapter_count + 1, sizeof(*matches->edits));
    if (!matches->edits)
        return error_no_memory(err, "the edits");
    matches->adapter_count = adapter_count;
    for (size_t i = 0; i < adapter_count; i++) {
        char quoted[QUOTED_BYTES];

        if (adapter_make_edits(&matches->edits[i], adapters[i].adapter, model, options, log, err)) {
            error_prefix(err, "adapter '%s'", quote_adapter(quoted, adapters[i].adapter));
            return err->code;
        }
        count += matches->edits[i].count;
        for (size_t e = 0; e < matches->edits[i].count; e++)
            matches->bytes += matches->edits[i].list[e].row_list_count * 2 * sizeof(uint64_t);
    }
    matches->bytes += count * (sizeof(*matches->list) + sizeof(struct adapter_edit));
    matches->list = calloc(count + 1, sizeof(*matches->list));
    return matches->list ? 0 : error_no_memory(err, "the list of edits");
}

static int fill_list(struct plan_matches *matches, const struct model *model,
                     const struct plan_adapter *adapters, struct error *err)
{
    for (uint32_t i = 0; i < matches->adapter_count; i++) {
        for (size_t e = 0; e < matches->edits[i].count; e++) {
            const struct adapter_edit *edit = &matches->edits[i].list[e];
            bool is_new = edit->new_name && edit->side == EDIT_UNTIED;

            if (check_weight(&adapters[i], edit, err))
                return err->code;
            matches->list[matches->count++] = (struct plan_match){
                .tensor = is_new ? PLAN_NEW_TENSOR : plan_model_number(model, edit->tensor),
                .replica = edit->replica,
                .adapter = i,
                .edit = edit,
            };
        }
    }
    return 0;
}

/*
 * A base may hold head and embedding apart and yet be tied by its configuration: then loading would
 * undo what is done to one of them.  New rows were trained through the tie, and stay tied.
 */
static void find_own_head(struct plan_matches *matches, const struct model *model,
                          const struct config_facts *facts)
{
    for (size_t i = 0; i < matches->count && !matches->own_head; i++) {
        const struct adapter_edit *edit = matches->list[i].edit;
        const struct st_tensor *tensor;
        enum edit_side use;

        if (edit->side != EDIT_UNTIED || edit->new_name || edit->kind == EDIT_ROWS)
            continue;
        tensor = model_tensor(model, edit->tensor);
        use = adapter_tensor_use(st_name(model_header(model, edit->tensor), tensor),
                                 tensor->name_bytes);
        matches->own_head = use == EDIT_HEAD || (use == EDIT_EMBEDDING && facts->tied == 1);
    }
}

int plan_match_all(struct plan_matches *out, const struct model *model,
                   const struct plan_adapter *adapters, size_t adapter_count,
                   const struct plan_options *options, const struct config_facts *facts,
                   const struct log *log, struct error *err)
{
    const struct edit_options edit_options = { .facts = facts,
                                               .b_layout = options->b_layout,
                                               .allow_unused = options->allow_unused };
    struct plan_matches matches = { 0 };
    int status;

    status = make_edits(&matches, model, adapters, adapter_count, &edit_options, log, err);
    if (!status)
        status = fill_list(&matches, model, adapters, err);
    if (!status)
        status = plan_resolve_tied(&matches, adapters, options->tied, log, err);
    if (!status) {
        find_own_head(&matches, model, facts);
        qsort(matches.list, matches.count, sizeof(*matches.list), compare_matches);
        status = check_conflicts(&matches, adapters, err);
    }
    if (status)
        plan_matches_release(&matches);
    else
        *out = matches;
    return status;
}

void plan_matches_release(struct plan_matches *matches)
{
    for (size_t i = 0; i < matches->adapter_count; i++)
        adapter_edits_release(&matches->edits[i]);
    free(matches->edits);
    free(matches->list);
    *matches = (struct plan_matches){ 0 };
}

/*
 * plan_adapter.c - an adapter that stays one
 *
 * Its tensors are copied or converted, in the order in which they lie in the file, so that blocks
 * read what lies together.
 */
#include "plan/plan_internal.h"

#include "adapter/spelling.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fill_tensor(struct plan *plan, const struct adapter *adapter, const uint64_t *shapes,
                       const struct adapter_spelled *spelled, const struct plan_options *options,
                       struct error *err)
{
    const struct st_header *header = &adapter->header;
    const struct st_tensor *tensor = &header->tensors[spelled->tensor];
    struct plan_tensor *out = &plan->tensors[plan->tensor_count++];

    *out = plan_copy_of(header, tensor);
    out->name = plan_keep(plan, spelled->name, strlen(spelled->name));
    out->name_bytes = (uint32_t)strlen(spelled->name);
    out->shape = shapes + tensor->shape_offset;
    if (!out->name)
        return error_no_memory(err, "a tensor name");
    return plan_convert(out, tensor, plan_output_dtype(header, tensor, options), err);
}

static int list_tensors(struct plan *plan, const struct adapter *adapter,
                        const struct plan_options *options, struct error *err)
{
    const struct st_header *header = &adapter->header;
    const uint64_t *shapes = plan_keep(plan, header->shapes,
                                       header->shapes_count * sizeof(*shapes));
    struct adapter_spelled *list = NULL;
    size_t count = 0;
    int status;

    plan->inputs = calloc(1, sizeof(*plan->inputs));
    if (!shapes || !plan->inputs)
        return error_no_memory(err, "the plan");
    plan->inputs[0] = (struct plan_input){ adapter->weights_path, adapter->identity };
    plan->input_count = 1;
    plan->shard_count = 1; /* there is nothing else that its tensors could be compared with */
    status = adapter_spell(&list, &count, adapter, err);
    if (status)
        return status;
    plan->tensors = calloc(count + 1, sizeof(*plan->tensors));
    if (!plan->tensors)
        status = error_no_memory(err, "the plan");
    for (size_t i = 0; i < count && !status; i++)
        status = fill_tensor(plan, adapter, shapes, &list[i], options, err);
    adapter_free_spelled(list, count);
    return status;
}

int plan_make_adapter(struct plan *out, const struct adapter *adapter,
                      const struct plan_options *options, struct error *err)
{
    const struct plan_options whole = { .max_shard_bytes = UINT64_MAX, .torch = options->torch };
    struct plan plan = { 0 };
    int status = list_tensors(&plan, adapter, options, err);

    if (!status && plan.tensor_count == 0)
        status = error_set(err, ERR_MISMATCH, "nothing of the adapter is left to write");
    if (!status) {
        plan_count_actions(&plan);
        status = plan_lay_out(&plan, NULL, &whole, err);
    }
    if (!status) {
        snprintf(plan.files[0].name, sizeof(plan.files[0].name), "%s",
                 options->torch ? PLAN_ADAPTER_TORCH_FILE : PLAN_ADAPTER_FILE);
        if (plan_count_blocks(&plan, err))
            status = error_set(err, ERR_FORMAT,
                               "the tensors of '%s' lie too far apart in the file to be read "
                               "together; load it and save it again with PEFT",
                               adapter->name);
    }
    if (status)
        plan_release(&plan);
    else
        *out = plan;
    return status;
}

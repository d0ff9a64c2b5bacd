#include "adapter/experts.h"

#include "adapter/naming.h"
#include "adapter/pairs.h"
#include "base/text.h"

#include <inttypes.h>
#include <string.h>

static const char *quote(char buf[QUOTED_BYTES], const char *text)
{
    return error_quote(buf, QUOTED_BYTES, text, strlen(text));
}

/* One expert of a parameter that the base keeps in one tensor per part. */
static int add_single(struct adapter_edits *edits, const struct expert_pair *pair,
                      const struct expert_place *place, uint64_t expert,
                      const struct expert_delta *delta, struct error *err)
{
    const struct model *model = pair->context->model;
    enum expert_part parts[2];
    size_t count = expert_place_parts(place, parts);
    uint64_t rows = place->rows / count;
    char quoted[QUOTED_BYTES];

    for (size_t i = 0; i < count; i++) {
        struct expert_delta part = expert_delta_rows(delta, i * rows, rows);
        struct model_ref ref;
        const uint64_t *shape;
        bool found;
        int status = expert_place_single(&ref, &found, place, model, expert, parts[i], err);

        if (status)
            return status;
        if (!found)
            return error_set(err, ERR_MISMATCH,
                             "the base lacks a tensor of expert %" PRIu64 " of '%s'", expert,
                             quote(quoted, place->experts));
        shape = st_shape(model_header(model, ref), model_tensor(model, ref));
        if (model_tensor(model, ref)->shape_count != 2 || shape[0] != rows ||
            shape[1] != place->cols)
            return expert_refuse_shape(pair, ref, err);
        status = expert_add_edit(edits, pair, ref, 0, rows, &part, err);
        if (status)
            return status;
    }
    return 0;
}

static int add_parameter(struct adapter_edits *edits, const struct expert_pair *pair,
                         const struct expert_parameter *parameter, struct error *err)
{
    const struct expert_place *place = &parameter->place;
    uint32_t rank = parameter->rank;
    bool transposed;
    bool grouped;
    int status = expert_is_transposed(&transposed, pair, place, err);

    if (!status)
        status = expert_b_is_grouped(&grouped, pair->context, place->count, rank, err);
    for (uint64_t e = 0; e < place->count && !status; e++) {
        struct expert_delta delta = expert_delta_make(pair, rank, parameter->scale, e * rank,
                                                      grouped ? e * rank : e,
                                                      grouped ? 1 : place->count);

        if (transposed)
            delta = expert_delta_transpose(&delta);
        if (place->kind == EXPERTS_SINGLE)
            status = add_single(edits, pair, place, e, &delta, err);
        else
            status = expert_add_edit(edits, pair, place->tensor, e * place->rows, place->rows,
                                     &delta, err);
    }
    return status;
}

/* The base has no such parameter: its two factors are listed. */
static int leave_out(const struct expert_pair *pair, struct error *err)
{
    struct adapter *adapter = pair->context->adapter;
    int status = adapter_add_unused(adapter, pair->pair->tensor_a, err);

    return status ? status : adapter_add_unused(adapter, pair->pair->tensor_b, err);
}

static int edits_of_parameter(struct adapter_edits *edits, const struct expert_pair *pair,
                              struct error *err)
{
    struct expert_parameter parameter = { 0 };
    bool found = false;
    int status = expert_refuse_extras(pair, err);

    if (!status)
        status = expert_parameter_find(&parameter, &found, pair, err);
    if (status == ERR_MISMATCH && !found && pair->context->options->allow_unused) {
        *err = (struct error){ 0 };
        return leave_out(pair, err);
    }
    if (!status)
        status = add_parameter(edits, pair, &parameter, err);
    expert_place_release(&parameter.place);
    return status;
}

/* Is there a tensor of the module's own name? */
static int has_own_tensor(bool *found, const struct expert_pair *pair,
                          const struct expert_name *parsed, struct error *err)
{
    const struct model *model = pair->context->model;
    struct naming_found tensors[NAMING_FOUND_MAX];
    struct text name = { 0 };
    struct model_ref ref;
    size_t count = 0;
    int status = 0;

    text_addf(&name, "%s.weight", pair->module);
    *found = !name.failed && model_find(model, name.data, name.bytes, &ref);
    if (name.failed)
        status = error_no_memory(err, "a tensor name");
    else if (!*found && !expert_is_fused(pair, parsed)) /* saves a long search for each expert */
        status = naming_find(tensors, &count, model, name.data, name.bytes, err);
    *found |= count > 0;
    text_release(&name);
    return status;
}

/* Factors are non-empty matrices that agree in rank. */
static int check_factors(const struct expert_pair *pair, struct error *err)
{
    const struct st_header *header = &pair->context->adapter->header;
    const struct st_tensor *a = &header->tensors[pair->pair->tensor_a];
    const struct st_tensor *b = &header->tensors[pair->pair->tensor_b];
    char quoted[QUOTED_BYTES];

    if (a->shape_count == 2 && b->shape_count == 2 && a->element_count && b->element_count &&
        st_shape(header, b)[1] == pair->rows && pair->pair->rank == pair->rows)
        return 0;
    return error_set(err, ERR_FORMAT,
                     "the factors of module '%s' do not have the shapes [rank, in] and [out, rank]",
                     quote(quoted, pair->pair->module));
}

int edits_of_experts(struct adapter_edits *edits, bool *handled,
                     const struct edits_context *context, uint32_t index, struct error *err)
{
    const struct adapter_pair *pair = &context->adapter->pairs[index];
    struct expert_pair work;
    struct expert_name name;
    bool own = false;
    int status;

    *handled = false;
    if (pair->layer != ADAPTER_LAYER_WEIGHT ||
        (!pair->parameter && !expert_name_read(&name, pair->module)))
        return 0;
    status = expert_pair_init(&work, context, index, err);
    if (!status && !pair->parameter && expert_name_read(&name, work.module))
        status = has_own_tensor(&own, &work, &name, err);
    if (status || own)
        goto out;
    status = check_factors(&work, err);
    if (status)
        goto out;
    if (pair->parameter) {
        *handled = true;
        status = edits_of_parameter(edits, &work, err);
    } else {
        status = expert_module_edits(edits, handled, &work, &name, err);
    }
out:
    expert_pair_release(&work);
    return status;
}

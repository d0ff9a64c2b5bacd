#include "plan/plan_internal.h"

#include <stdlib.h>
#include <string.h>

/*
 * Names that model code keeps in fp32 when the rest is cast (transformers'
 * _keep_in_fp32_modules): a base that holds them in F32 keeps them so under --dtype.
 */
static const char *const kept_in_f32[] = { "e_score_correction_bias",
                                           "DenseReluDense.wo.weight",
                                           "A_log",
                                           "inv_freq",
                                           "time_decay",
                                           "time_first" };

static bool is_kept_in_f32(const char *name, size_t bytes)
{
    for (size_t i = 0; i < sizeof(kept_in_f32) / sizeof(kept_in_f32[0]); i++) {
        size_t end_bytes = strlen(kept_in_f32[i]);

        if (bytes >= end_bytes &&
            memcmp(name + bytes - end_bytes, kept_in_f32[i], end_bytes) == 0 &&
            (bytes == end_bytes || name[bytes - end_bytes - 1] == '.'))
            return true;
    }
    return false;
}

static enum dtype output_dtype(const struct st_header *header, const struct st_tensor *tensor,
                               const struct plan_options *options)
{
    enum dtype dtype = (enum dtype)tensor->dtype;

    if (!options->convert || !dtype_is_computed(dtype))
        return dtype;
    if (dtype == DTYPE_F32 && is_kept_in_f32(st_name(header, tensor), tensor->name_bytes))
        return dtype;
    return options->dtype;
}

/* The output of one tensor of the base, as a copy or conversion. */
static int fill_tensor(struct plan_tensor *out, const struct model *model, uint32_t shard,
                       uint32_t index, const struct plan_options *options, struct error *err)
{
    const struct st_header *header = &model->shards[shard].header;
    const struct st_tensor *tensor = &header->tensors[index];
    enum dtype dtype_out = output_dtype(header, tensor, options);
    char quoted[QUOTED_BYTES];

    *out = (struct plan_tensor){
        .name = st_name(header, tensor),
        .shape = st_shape(header, tensor),
        .name_bytes = tensor->name_bytes,
        .input = shard,
        .shard = shard,
        .in_offset = header->data_start + tensor->data_offset,
        .in_bytes = tensor->data_bytes,
        .out_bytes = tensor->data_bytes,
        .target = PLAN_NO_TARGET,
        .shape_count = tensor->shape_count,
        .action = PLAN_COPY,
        .dtype_in = (uint8_t)tensor->dtype,
        .dtype_out = (uint8_t)dtype_out,
    };
    if (dtype_out != (enum dtype)tensor->dtype) {
        out->action = PLAN_CONVERT;
        if (!mul_u64(tensor->element_count, dtype_bytes(dtype_out), &out->out_bytes))
            return error_set(err, ERR_FORMAT, "tensor '%s' is too large as %s",
                             error_quote(quoted, sizeof(quoted), out->name, out->name_bytes),
                             dtype_name(dtype_out));
    }
    return 0;
}

static struct plan_delta make_delta(const struct plan_adapter *adapter,
                                    const struct adapter_pair *pair, uint32_t input)
{
    const struct st_header *header = &adapter->adapter->header;
    const struct st_tensor *a = &header->tensors[pair->tensor_a];
    const struct st_tensor *b = &header->tensors[pair->tensor_b];

    return (struct plan_delta){
        .input = input,
        .rank = pair->rank,
        .a_offset = header->data_start + a->data_offset,
        .b_offset = header->data_start + b->data_offset,
        .a_dtype = (enum dtype)a->dtype,
        .b_dtype = (enum dtype)b->dtype,
        .scale = (float)(adapter->weight * pair->scale),
    };
}

/* Read the tensor from an adapter that brings its own copy of the base's. */
static void take_from_adapter(struct plan_tensor *tensor, const struct adapter *adapter,
                              const struct adapter_pair *pair, uint32_t input)
{
    const struct st_tensor *copy = &adapter->header.tensors[pair->tensor_base];

    tensor->input = input;
    tensor->in_offset = adapter->header.data_start + copy->data_offset;
    tensor->in_bytes = copy->data_bytes;
    tensor->dtype_in = (uint8_t)copy->dtype;
    tensor->action = tensor->dtype_in == tensor->dtype_out ? PLAN_COPY : PLAN_CONVERT;
}

/* Make the tensor `index` of the plan a target of the matches [first, end). */
static void add_target(struct plan *plan, uint64_t index, const struct plan_adapter *adapters,
                       const struct plan_matches *matches, size_t first, size_t end,
                       size_t shard_count)
{
    struct plan_tensor *tensor = &plan->tensors[index];
    struct plan_target *target = &plan->targets[plan->target_count];

    *target = (struct plan_target){
        .tensor = index,
        .rows = tensor->shape[0],
        .cols = tensor->shape[1],
        .delta_first = (uint32_t)plan->delta_count,
        .delta_count = (uint32_t)(end - first),
        .resident = PLAN_NO_TARGET,
    };
    for (size_t i = first; i < end; i++) {
        const struct plan_match *match = &matches->list[i];
        const struct plan_adapter *adapter = &adapters[match->adapter];
        const struct adapter_pair *pair = &adapter->adapter->pairs[match->pair];

        plan->deltas[plan->delta_count] = make_delta(adapter, pair,
                                                     (uint32_t)(shard_count + match->adapter));
        target->rank_sum += pair->rank;
        if (pair->tensor_base != ADAPTER_NO_TENSOR)
            take_from_adapter(tensor, adapter->adapter, pair,
                              (uint32_t)(shard_count + match->adapter));
        plan->delta_count++;
    }
    tensor->action = PLAN_FOLD;
    tensor->target = (uint32_t)plan->target_count;
    plan->target_count++;
}

static int fill_inputs(struct plan *plan, const struct model *model,
                       const struct plan_adapter *adapters, size_t adapter_count, struct error *err)
{
    plan->inputs = calloc(model->shard_count + adapter_count + 1, sizeof(*plan->inputs));
    if (!plan->inputs)
        return error_no_memory(err, "the list of inputs");
    plan->shard_count = (uint32_t)model->shard_count;
    for (size_t i = 0; i < model->shard_count; i++)
        plan->inputs[plan->input_count++] = (struct plan_input){ model->shards[i].path,
                                                                 model->shards[i].identity };
    for (size_t i = 0; i < adapter_count; i++)
        plan->inputs[plan->input_count++] = (struct plan_input){ adapters[i].adapter->weights_path,
                                                                 adapters[i].adapter->identity };
    return 0;
}

static void count_actions(struct plan *plan)
{
    for (size_t i = 0; i < plan->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        uint64_t parameters = 1;

        for (unsigned d = 0; d < tensor->shape_count; d++)
            parameters *= tensor->shape[d]; /* the header's parser has checked this product */
        plan->parameter_count += parameters;
        plan->bytes_in += tensor->in_bytes;
        plan->tensor_bytes_out += tensor->out_bytes;
        plan->folded += tensor->action == PLAN_FOLD;
        plan->converted += tensor->action == PLAN_CONVERT;
        plan->copied += tensor->action == PLAN_COPY;
    }
}

/*
 * The head of a tied base becomes a tensor of its own, behind all others.  An adapter that brings
 * a copy of it means both sides of the pair, so the embedding is read from there too.
 */
static int add_head(struct plan *plan, const struct model *model,
                    const struct plan_adapter *adapters, const struct plan_matches *matches,
                    size_t first, const struct plan_options *options, struct error *err)
{
    struct plan_tensor *embedding = &plan->tensors[plan_model_number(model, matches->head_source)];
    struct plan_tensor *head = &plan->tensors[plan->tensor_count];
    int status;

    status = fill_tensor(head, model, matches->head_source.shard, matches->head_source.tensor,
                         options, err);
    if (status)
        return status;
    head->name = plan->tied_head;
    head->name_bytes = (uint32_t)strlen(plan->tied_head);
    head->shard = plan->tensors[plan->tensor_count - 1].shard;
    plan->tied_head_bytes = head->out_bytes;
    add_target(plan, plan->tensor_count, adapters, matches, first, matches->count,
               model->shard_count);
    plan->tensor_count++;
    if (head->input >= model->shard_count) {
        embedding->input = head->input;
        embedding->in_offset = head->in_offset;
        embedding->in_bytes = head->in_bytes;
        embedding->dtype_in = head->dtype_in;
        if (embedding->action != PLAN_FOLD)
            embedding->action = embedding->dtype_in == embedding->dtype_out ? PLAN_COPY
                                                                            : PLAN_CONVERT;
    }
    return 0;
}

int plan_list_tensors(struct plan *plan, const struct model *model,
                      const struct plan_adapter *adapters, size_t adapter_count,
                      const struct plan_matches *matches, const struct plan_options *options,
                      struct error *err)
{
    size_t next = 0; /* first match that is not used */
    int status;

    status = fill_inputs(plan, model, adapters, adapter_count, err);
    if (status)
        return status;
    plan->tensors = calloc(model->tensor_count + 1, sizeof(*plan->tensors));
    plan->targets = calloc(matches->count + 1, sizeof(*plan->targets));
    plan->deltas = calloc(matches->count + 1, sizeof(*plan->deltas));
    if (!plan->tensors || !plan->targets || !plan->deltas)
        return error_no_memory(err, "the plan");
    for (uint32_t s = 0; s < model->shard_count; s++) {
        for (uint32_t t = 0; t < model->shards[s].header.tensor_count; t++) {
            size_t first = next;

            status = fill_tensor(&plan->tensors[plan->tensor_count], model, s, t, options, err);
            if (status)
                return status;
            while (next < matches->count && matches->list[next].tensor == plan->tensor_count)
                next++;
            if (next > first)
                add_target(plan, plan->tensor_count, adapters, matches, first, next,
                           model->shard_count);
            plan->tensor_count++;
        }
    }
    if (matches->head) {
        status = add_head(plan, model, adapters, matches, next, options, err);
        if (status)
            return status;
    }
    count_actions(plan);
    return 0;
}

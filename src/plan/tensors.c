#include "plan/plan_internal.h"

#include "base/array.h"
#include "compute/quant_layout.h"

#include <stdlib.h>
#include <string.h>

#define KEPT_OVERHEAD 32u /* its pointer, the zero, and what the allocator adds */

/* So that layers of hostile many tensors cannot be repeated without end before memory is counted.
 */
#define REPEATED_TENSORS_MAX (UINT64_C(1) << 20)

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

enum dtype plan_output_dtype(const struct st_header *header, const struct st_tensor *tensor,
                             const struct plan_options *options)
{
    enum dtype dtype = (enum dtype)tensor->dtype;

    if (!options->convert || !dtype_is_computed(dtype))
        return dtype;
    if (dtype == DTYPE_F32 && is_kept_in_f32(st_name(header, tensor), tensor->name_bytes))
        return dtype;
    return options->dtype;
}

void *plan_keep(struct plan *plan, const void *data, size_t bytes)
{
    void **kept = array_next(plan->kept, plan->kept_count, &plan->kept_capacity, sizeof(*kept));
    void *copy;

    if (!kept)
        return NULL;
    plan->kept = kept;
    copy = malloc(bytes + 1); /* names end with a zero */
    if (!copy)
        return NULL;
    if (bytes)
        memcpy(copy, data, bytes);
    ((char *)copy)[bytes] = 0;
    plan->kept[plan->kept_count++] = copy;
    plan->kept_bytes += bytes + KEPT_OVERHEAD;
    return copy;
}

/*
 * Do the scales and the zero points that one element needs fit what is read of them at once?  Where
 * the tensor lies transposed that is a field of every line, and where fields cross words two lines.
 */
static bool companions_fit(const struct quant_matrix *matrix)
{
    for (int part = QUANT_PART_SCALES; part < QUANT_PART_COUNT; part++) {
        struct quant_plane plane;
        uint64_t bytes;

        if (!quant_plane_of(&plane, matrix, (enum quant_part)part))
            return false;
        if (plane.lines == 0) /* there are none */
            continue;
        bytes = plane.packing == QUANT_BYTES ? max_u64(plane.bits / 8, 1) : 2 * sizeof(uint32_t);
        if (matrix->transposed && plane.lines > PLAN_COMPANION_BYTES / bytes)
            return false;
        if (!matrix->transposed && plane.packing == QUANT_WORDS_DOWN &&
            plane.line_bytes > PLAN_COMPANION_BYTES - bytes)
            return false;
    }
    return true;
}

/* A quantised tensor: read its codes, and decode them. */
static int fill_quant(struct plan_tensor *out, const struct scheme_tensor *quant, struct error *err)
{
    const struct scheme_part *codes = &quant->parts[QUANT_PART_CODES];
    char quoted[QUOTED_BYTES];

    if (quant->nested.bytes > PLAN_WHOLE_FLOATS * sizeof(float) ||
        quant->group_of.bytes > PLAN_GROUPS_MAX * sizeof(uint32_t))
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' of the base has more nested scales or inputs than are "
                         "decoded (%llu)",
                         error_quote(quoted, sizeof(quoted), out->name, out->name_bytes),
                         (unsigned long long)PLAN_GROUPS_MAX);
    if (!companions_fit(&quant->matrix))
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' of the base has more scales or zero points for one weight "
                         "than are read (%llu bytes)",
                         error_quote(quoted, sizeof(quoted), out->name, out->name_bytes),
                         (unsigned long long)PLAN_COMPANION_BYTES);
    out->quant = quant;
    out->input = codes->shard;
    out->in_offset = codes->offset;
    out->in_bytes = codes->bytes;
    out->action = PLAN_CONVERT;
    return 0;
}

struct plan_tensor plan_copy_of(const struct st_header *header, const struct st_tensor *tensor)
{
    return (struct plan_tensor){
        .name = st_name(header, tensor),
        .shape = st_shape(header, tensor),
        .name_bytes = tensor->name_bytes,
        .in_offset = header->data_start + tensor->data_offset,
        .in_bytes = tensor->data_bytes,
        .out_bytes = tensor->data_bytes,
        .shape_count = tensor->shape_count,
        .action = PLAN_COPY,
        .dtype_in = (uint8_t)tensor->dtype,
        .dtype_out = (uint8_t)tensor->dtype,
    };
}

int plan_convert(struct plan_tensor *out, const struct st_tensor *tensor, enum dtype dtype,
                 struct error *err)
{
    if (dtype == (enum dtype)tensor->dtype)
        return 0;
    out->action = PLAN_CONVERT;
    out->dtype_out = (uint8_t)dtype;
    return mul_u64(tensor->element_count, dtype_bytes(dtype), &out->out_bytes)
               ? 0
               : plan_too_large(out, err);
}

/* The output of one tensor of the base, as a copy or conversion. */
static int fill_tensor(struct plan_tensor *out, const struct plan_maker *maker,
                       struct model_ref ref, uint64_t number, struct error *err)
{
    const struct plan_options *options = maker->options;
    const struct st_header *header = model_header(maker->model, ref);
    const struct st_tensor *tensor = model_tensor(maker->model, ref);

    *out = plan_copy_of(header, tensor);
    out->input = out->shard = ref.shard;
    if (plan_convert(out, tensor, plan_output_dtype(header, tensor, options), err))
        return err->code;
    if (options->scheme && options->scheme->tensors[number].kind != SCHEME_PLAIN)
        return fill_quant(out, &options->scheme->tensors[number], err);
    return 0;
}

static int new_tensor(struct plan *plan, size_t *capacity, struct error *err)
{
    struct plan_tensor *more = array_next(plan->tensors, plan->tensor_count, capacity,
                                          sizeof(*more));

    if (!more)
        return error_no_memory(err, "the plan");
    plan->tensors = more;
    plan->tensors[plan->tensor_count++] = (struct plan_tensor){ 0 };
    return 0;
}

/* Quantise the newest tensor, if it is one to quantise; its companions follow it. */
static int encode_newest(const struct plan_maker *maker, size_t *capacity, struct error *err)
{
    struct plan *plan = maker->plan;
    struct plan_tensor made[PLAN_COMPANIONS + 1] = { plan->tensors[plan->tensor_count - 1] };
    size_t count = 0;

    if (!plan_is_encoded(maker, &made[0]))
        return 0;
    if (plan_encode(plan, made, &count, plan->tensor_count - 1, maker->options, err))
        return err->code;
    plan->tensors[plan->tensor_count - 1] = made[0];
    for (size_t i = 1; i < count; i++) {
        if (new_tensor(plan, capacity, err))
            return err->code;
        plan->tensors[plan->tensor_count - 1] = made[i];
    }
    return 0;
}

/* "model.layers.3.x" as the layer `layer` of the new model. */
static int rename_layer(struct plan *plan, struct plan_tensor *tensor, size_t begin, size_t end,
                        uint64_t layer, struct error *err)
{
    struct text name = { 0 };
    int status = 0;

    text_add(&name, tensor->name, begin);
    text_addf(&name, "%llu", (unsigned long long)layer);
    text_add(&name, tensor->name + end, tensor->name_bytes - end);
    if (!name.failed)
        tensor->name = plan_keep(plan, name.data, name.bytes);
    if (name.failed || !tensor->name)
        status = error_no_memory(err, "a tensor name");
    tensor->name_bytes = (uint32_t)name.bytes;
    text_release(&name);
    return status;
}

/* All output tensors that one tensor of the base becomes: one, or one per copy of its layer. */
static int add_base_tensor(const struct plan_maker *maker, struct model_ref ref, uint64_t number,
                           size_t *next, size_t *capacity, struct error *err)
{
    struct plan *plan = maker->plan;
    const struct st_header *header = model_header(maker->model, ref);
    const struct st_tensor *base = model_tensor(maker->model, ref);
    const struct adapter_replicas *replicas = &plan->replicas;
    struct plan_match *list = maker->matches->list;
    size_t begin = 0, end = 0;
    bool layered = replicas->count &&
                   adapter_name_layer(st_name(header, base), base->name_bytes, &begin, &end);
    uint64_t layer = layered ? strtoull(st_name(header, base) + begin, NULL, 10) : 0;
    uint32_t replica = 0;

    for (uint64_t i = 0; i < (layered ? replicas->count : 1); i++) {
        size_t first;
        int status;

        if (layered && replicas->base_layer[i] != layer)
            continue;
        if (layered && plan->tensor_count >= REPEATED_TENSORS_MAX)
            return error_set(err, ERR_MISMATCH,
                             "'layer_replication' makes a model of more than %llu tensors",
                             (unsigned long long)REPEATED_TENSORS_MAX);
        status = new_tensor(plan, capacity, err);
        if (!status)
            status = fill_tensor(&plan->tensors[plan->tensor_count - 1], maker, ref, number, err);
        if (!status && layered)
            status = rename_layer(plan, &plan->tensors[plan->tensor_count - 1], begin, end, i, err);
        first = *next;
        while (*next < maker->matches->count && !list[*next].head && list[*next].tensor == number &&
               list[*next].replica == replica)
            (*next)++;
        if (!status && plan_is_turned(maker, &plan->tensors[plan->tensor_count - 1], list + first,
                                      *next - first))
            status = plan_turn(plan, &plan->tensors[plan->tensor_count - 1], list + first,
                               *next - first, err);
        if (!status && *next > first)
            status = plan_apply(maker, list + first, *next - first, err);
        if (!status)
            plan_set_roundtrip(plan, &plan->tensors[plan->tensor_count - 1], maker->options);
        if (!status)
            status = maker->options->stored ? plan_same(maker, ref, number, err)
                                            : encode_newest(maker, capacity, err);
        if (status)
            return status;
        replica++;
    }
    return 0;
}

/* The dtype that a tensor gets which the base does not have: that of most of the base. */
static enum dtype main_dtype(const struct plan *plan)
{
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F16, DTYPE_F32 };
    uint64_t bytes[DTYPE_COUNT] = { 0 };
    enum dtype main = DTYPE_F32;

    for (size_t i = 0; i < plan->tensor_count; i++)
        bytes[plan->tensors[i].dtype_out] += plan->tensors[i].out_bytes;
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        if (bytes[dtypes[i]] > bytes[main])
            main = dtypes[i];
    }
    return main;
}

/* A tensor that the base does not have, behind all others. */
static int add_new_tensor(const struct plan_maker *maker, struct plan_match *match,
                          enum dtype dtype, size_t *capacity, struct error *err)
{
    struct plan *plan = maker->plan;
    const struct adapter *adapter = maker->adapters[match->adapter].adapter;
    const struct st_tensor *source = &adapter->header.tensors[match->edit->source];
    const char *name = match->edit->new_name;
    struct plan_tensor *tensor;

    if (new_tensor(plan, capacity, err))
        return err->code;
    tensor = &plan->tensors[plan->tensor_count - 1];
    *tensor = (struct plan_tensor){
        .name = plan_keep(plan, name, strlen(name)),
        .name_bytes = (uint32_t)strlen(name),
        .shard = plan->tensor_count > 1 ? tensor[-1].shard : 0,
        .action = PLAN_PATCH,
        .dtype_in = (uint8_t)source->dtype,
        .dtype_out = (uint8_t)(dtype_is_computed((enum dtype)source->dtype) ? dtype
                                                                            : source->dtype),
    };
    if (!tensor->name)
        return error_no_memory(err, "a tensor name");
    return plan_apply(maker, match, 1, err);
}

/*
 * The head of a tied base becomes a tensor of its own, behind all others.  An adapter that brings
 * a copy of it beside factors means both sides of the pair, so the embedding is read from there
 * too, unless it is changed itself.
 */
static int add_head(const struct plan_maker *maker, size_t first, size_t *capacity,
                    struct error *err)
{
    struct plan *plan = maker->plan;
    const struct plan_matches *matches = maker->matches;
    struct plan_tensor *embedding = NULL;
    struct plan_tensor *head;
    struct model_ref ref = { 0 };
    uint64_t number = matches->tied;
    int status;

    while (number >= maker->model->shards[ref.shard].header.tensor_count)
        number -= maker->model->shards[ref.shard++].header.tensor_count;
    ref.tensor = (uint32_t)number;
    plan->tied_head = strdup(matches->head_name);
    if (!plan->tied_head)
        return error_no_memory(err, "a tensor name");
    status = new_tensor(plan, capacity, err);
    if (status)
        return status;
    head = &plan->tensors[plan->tensor_count - 1];
    status = fill_tensor(head, maker, ref, matches->tied, err);
    if (status)
        return status;
    for (size_t i = 0; i + 1 < plan->tensor_count && !embedding; i++) {
        if (plan->tensors[i].name == head->name)
            embedding = &plan->tensors[i];
    }
    head->name = plan->tied_head;
    head->name_bytes = (uint32_t)strlen(plan->tied_head);
    head->shard = head[-1].shard;
    if (matches->count > first)
        status = plan_apply(maker, matches->list + first, matches->count - first, err);
    plan->tied_head_bytes = head->out_bytes;
    if (!status && embedding && embedding->target_count == 0 && embedding->patch_count == 0 &&
        embedding->input < maker->model->shard_count && head->action == PLAN_FOLD &&
        head->input >= maker->model->shard_count) {
        embedding->quant = NULL;
        embedding->input = head->input;
        embedding->in_offset = head->in_offset;
        embedding->in_bytes = head->in_bytes;
        embedding->out_bytes = head->out_bytes;
        embedding->shape = head->shape;
        embedding->dtype_in = head->dtype_in;
        embedding->action = embedding->dtype_in == embedding->dtype_out ? PLAN_COPY : PLAN_CONVERT;
    }
    return status;
}

/*
 * Where model code ties "x.decoder.bias" to "x.bias" (BERT and its kin), untying the weight unties
 * the bias as well: the head gets its own of what became of it.
 */
static int add_head_bias(const struct plan_maker *maker, size_t *capacity, struct error *err)
{
    static const char ending[] = ".decoder.weight";
    struct plan *plan = maker->plan;
    const char *head = plan->tied_head;
    size_t bytes = strlen(head);
    struct model_ref unused;
    struct text name = { 0 };
    struct plan_tensor *tensor;
    size_t bias = 0;
    int status = 0;

    if (bytes < sizeof(ending) || strcmp(head + bytes - strlen(ending), ending) != 0)
        return 0;
    text_add(&name, head, bytes - strlen(ending));
    text_adds(&name, ".bias");
    while (!name.failed && bias < plan->tensor_count &&
           (plan->tensors[bias].name_bytes != name.bytes ||
            memcmp(plan->tensors[bias].name, name.data, name.bytes) != 0))
        bias++;
    if (name.failed || bias == plan->tensor_count)
        goto out;
    text_clear(&name);
    text_add(&name, head, bytes - strlen("weight"));
    text_adds(&name, "bias");
    if (name.failed || model_find(maker->model, name.data, name.bytes, &unused))
        goto out;
    status = new_tensor(plan, capacity, err);
    if (status)
        goto out;
    tensor = &plan->tensors[plan->tensor_count - 1];
    *tensor = plan->tensors[bias];
    tensor->name = plan_keep(plan, name.data, name.bytes);
    tensor->name_bytes = (uint32_t)name.bytes;
    tensor->shard = tensor[-1].shard;
    if (!tensor->name)
        status = error_no_memory(err, "a tensor name");
out:
    if (!status && name.failed)
        status = error_no_memory(err, "a tensor name");
    text_release(&name);
    return status;
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

void plan_count_actions(struct plan *plan)
{
    for (size_t i = 0; i < plan->tensor_count; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        bool patched = tensor->patch_count > 0;
        /* In its own scheme all of a base counts as it is stored: the caller knows the difference.
         */
        bool fresh = tensor->encoding && !tensor->encoding->same;
        uint64_t parameters = !fresh || tensor->action != PLAN_COMPANION;

        if (fresh && tensor->action == PLAN_ENCODE)
            parameters = tensor->encoding->elements;
        for (unsigned d = 0; d < tensor->shape_count && !fresh; d++)
            parameters *= tensor->shape[d]; /* the header's parser has checked this product */
        plan->parameter_count += parameters;
        plan->bytes_in += tensor->in_bytes;
        plan->tensor_bytes_out += tensor->out_bytes;
        plan->decoded += tensor->quant != NULL;
        plan->turned += tensor->quant && tensor->quant->kind == SCHEME_PLAIN;
        plan->encoded += tensor->action == PLAN_ENCODE;
        plan->roundtrips += tensor->roundtrip;
        plan->folded += tensor->action == PLAN_FOLD ||
                        (tensor->action == PLAN_ENCODE && tensor->target_count);
        plan->replaced += tensor->action == PLAN_PATCH ||
                          (tensor->action != PLAN_FOLD && tensor->in_bytes &&
                           tensor->input >= plan->shard_count);
        plan->patched += patched && tensor->action != PLAN_PATCH && !tensor->whole;
        plan->converted += tensor->action == PLAN_CONVERT && !patched &&
                           tensor->input < plan->shard_count;
        plan->converted += tensor->action == PLAN_ENCODE && !tensor->target_count;
        plan->copied += tensor->action == PLAN_COPY && !patched &&
                        tensor->input < plan->shard_count;
    }
}

/* Where the base is written back: tensors that the view lacks, before its tensor `number`. */
static int add_companions(const struct plan_maker *maker, uint32_t shard, uint32_t *stored,
                          uint64_t number, size_t *capacity, struct error *err)
{
    const struct model *model = maker->options->stored;
    struct plan *plan = maker->plan;
    size_t end;

    if (!model)
        return 0;
    end = number == UINT64_MAX ? model->shards[shard].header.tensor_count
                               : maker->options->scheme->stored[number];
    for (; *stored < end; (*stored)++) {
        if (new_tensor(plan, capacity, err))
            return err->code;
        plan_stored(&plan->tensors[plan->tensor_count - 1], model,
                    (struct model_ref){ shard, *stored });
    }
    return 0;
}

static int list_tensors(const struct plan_maker *maker, struct error *err)
{
    struct plan *plan = maker->plan;
    const struct plan_matches *matches = maker->matches;
    const struct model *stored = maker->options->stored ? maker->options->stored : maker->model;
    size_t capacity = stored->tensor_count + 1; /* growing would take half as much again */
    size_t next = 0;                            /* first match that is not used */
    uint64_t number = 0;
    enum dtype dtype;

    plan->tensors = calloc(capacity, sizeof(*plan->tensors));
    plan->target_capacity = plan->delta_capacity = matches->count + 1;
    plan->targets = calloc(plan->target_capacity, sizeof(*plan->targets));
    plan->deltas = calloc(plan->delta_capacity, sizeof(*plan->deltas));
    if (!plan->tensors || !plan->targets || !plan->deltas)
        return error_no_memory(err, "the plan");
    for (uint32_t s = 0; s < maker->model->shard_count; s++) {
        uint32_t place = 0; /* of the next tensor as it is stored */

        for (uint32_t t = 0; t < maker->model->shards[s].header.tensor_count; t++) {
            if (add_companions(maker, s, &place, number, &capacity, err) ||
                add_base_tensor(maker, (struct model_ref){ s, t }, number++, &next, &capacity, err))
                return err->code;
            place++;
        }
        if (add_companions(maker, s, &place, UINT64_MAX, &capacity, err))
            return err->code;
    }
    if (maker->options->stored && plan_same_scales(plan, err))
        return err->code;
    dtype = main_dtype(plan);
    for (; next < matches->count && !matches->list[next].head; next++) {
        if (add_new_tensor(maker, &matches->list[next], dtype, &capacity, err))
            return err->code;
    }
    if (!matches->head)
        return 0;
    if (add_head(maker, next, &capacity, err))
        return err->code;
    return add_head_bias(maker, &capacity, err);
}

/* The headers' parser has bounded each tensor by its file. */
static uint64_t count_elements(const struct model *model)
{
    uint64_t count = 0;

    for (size_t s = 0; s < model->shard_count; s++) {
        for (size_t t = 0; t < model->shards[s].header.tensor_count; t++)
            count += model->shards[s].header.tensors[t].element_count;
    }
    return count;
}

int plan_list_tensors(struct plan *plan, const struct model *model,
                      const struct plan_adapter *adapters, const struct plan_matches *matches,
                      const struct plan_options *options, const struct config_facts *facts,
                      struct error *err)
{
    const struct plan_maker maker = {
        plan, model, adapters, matches, options, facts, plan_base_is_bnb4(options)
    };
    int status;

    status = fill_inputs(plan, model, adapters, matches->adapter_count, err);
    if (!status)
        status = list_tensors(&maker, err);
    if (!status)
        status = plan_list_skipped(&maker, err);
    if (status)
        return status;
    plan_count_actions(plan);
    if (options->stored)
        plan->parameter_count += count_elements(model) - count_elements(options->stored);
    return 0;
}

#include "adapter/edits_find.h"
#include "adapter/tied.h"
#include "base/array.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

static void release_edit(struct adapter_edit *edit)
{
    free(edit->new_name);
    free(edit->row_list);
    free(edit->row_source);
}

void adapter_edits_release(struct adapter_edits *edits)
{
    for (size_t i = 0; i < edits->count; i++)
        release_edit(&edits->list[i]);
    free(edits->list);
    *edits = (struct adapter_edits){ 0 };
}

int edits_add(struct adapter_edits *edits, const struct adapter_edit *edit, struct error *err)
{
    struct adapter_edit copy = *edit;

    if (edits->count == edits->capacity) {
        struct adapter_edit *more = array_grow(edits->list, &edits->capacity, sizeof(*more));

        if (!more) {
            release_edit(&copy);
            return error_no_memory(err, "the list of edits");
        }
        edits->list = more;
    }
    edits->list[edits->count++] = copy;
    return 0;
}

static int add_unused(struct adapter *adapter, uint32_t tensor, struct error *err)
{
    const struct st_tensor *t = &adapter->header.tensors[tensor];
    char **more;
    char *name;

    if (tensor == ADAPTER_NO_TENSOR)
        return 0;
    more = realloc(adapter->unused, (adapter->unused_count + 1) * sizeof(*more));
    if (!more)
        return error_no_memory(err, "a tensor name");
    adapter->unused = more;
    name = strndup(st_name(&adapter->header, t), t->name_bytes);
    if (!name)
        return error_no_memory(err, "a tensor name");
    adapter->unused[adapter->unused_count++] = name;
    return 0;
}

/* A pair whose tensor the base does not have. */
static int leave_out_pair(const struct edits_context *context, const struct adapter_pair *pair,
                          struct error *err)
{
    struct adapter *adapter = context->adapter;
    const uint32_t tensors[] = { pair->tensor_a, pair->tensor_b, pair->tensor_b_bias,
                                 pair->tensor_magnitude, pair->tensor_base };
    struct text name = { 0 };
    int status = 0;

    if (context->options->allow_unused) {
        for (size_t i = 0; i < sizeof(tensors) / sizeof(tensors[0]) && !status; i++)
            status = add_unused(adapter, tensors[i], err);
        return status;
    }
    text_adds(&name, pair->module);
    text_adds(&name, ".weight");
    status = name.failed ? error_no_memory(err, "a tensor name")
                         : edits_refuse_unknown(context, name.data, err);
    text_release(&name);
    return status;
}

static int add_pair(struct adapter_edits *edits, const struct edits_context *context,
                    uint32_t index, struct error *err)
{
    bool placed;
    int status = edits_of_experts(edits, &placed, context, index, err);

    if (status || placed)
        return status;
    status = edits_of_layer(edits, &placed, context, index, err);
    if (status || placed)
        return status;
    return leave_out_pair(context, &context->adapter->pairs[index], err);
}

static int add_saved(struct adapter_edits *edits, const struct edits_context *context,
                     const struct adapter_saved *saved, struct error *err)
{
    bool placed;
    int status = edits_of_saved(edits, &placed, context, saved, err);

    if (status || placed)
        return status;
    if (context->options->allow_unused)
        return add_unused(context->adapter, saved->tensor, err);
    return edits_refuse_unknown(context, saved->name, err);
}

/* T5, BART and their kin have one embedding of this name under several others as well. */
static bool is_shared_embedding(const struct adapter_pair *pair)
{
    const char *dot = strrchr(pair->module, '.');

    return pair->layer == ADAPTER_LAYER_EMBEDDING &&
           strcmp(dot ? dot + 1 : pair->module, "shared") == 0;
}

static void say_notes(const struct edits_context *context)
{
    const struct edits_notes *notes = context->notes;
    const char *name = context->adapter->name;
    char quoted[QUOTED_BYTES];
    char module[QUOTED_BYTES];

    error_quote(quoted, sizeof(quoted), name, strlen(name));
    for (size_t i = 0; i < context->adapter->pair_count; i++) {
        if (is_shared_embedding(&context->adapter->pairs[i]))
            log_say(context->log, LOG_WARNING,
                    "adapter '%s': its factors of '%s' change all uses of that embedding now, "
                    "while PEFT changes none or some of them: compare the output",
                    quoted,
                    error_quote(module, sizeof(module), context->adapter->pairs[i].module,
                                strlen(context->adapter->pairs[i].module)));
    }
    if (notes->doubled_count)
        log_say(context->log, LOG_NOTICE,
                "adapter '%s': PEFT adds the delta of out_proj in an attention layer twice, in "
                "training as well, so it is added twice (in %zu layers)",
                quoted, notes->doubled_count);
    if (notes->guessed_count)
        log_say(context->log, LOG_NOTICE,
                "adapter '%s': %zu square weights of a model type that is not known are taken as "
                "stored transposed, since fan_in_fan_out of the configuration says so",
                quoted, notes->guessed_count);
}

static int add_all(struct adapter_edits *edits, const struct edits_context *context,
                   struct error *err)
{
    const struct adapter *adapter = context->adapter;
    int status = 0;

    for (size_t i = 0; i < adapter->pair_count && !status; i++)
        status = add_pair(edits, context, (uint32_t)i, err);
    for (size_t i = 0; i < adapter->saved_count && !status; i++)
        status = add_saved(edits, context, &adapter->saved[i], err);
    if (!status)
        status = edits_mirror_rows(edits, err);
    if (!status)
        status = edits_check_twice(edits, adapter, err);
    return status ? status : edits_complete_rows(edits, context, err);
}

int adapter_make_edits(struct adapter_edits *out, struct adapter *adapter,
                       const struct model *model, const struct edit_options *options,
                       const struct log *log, struct error *err)
{
    struct adapter_edits edits = { 0 };
    struct adapter_replicas replicas;
    struct edits_notes notes = { 0 };
    struct tied_uses uses;
    struct edits_context context = { .adapter = adapter,
                                     .model = model,
                                     .options = options,
                                     .replicas = &replicas,
                                     .log = log,
                                     .uses = &uses,
                                     .notes = &notes };
    int status = adapter_find_replicas(&replicas, adapter, model, err);

    if (status)
        return status;
    /* One edit per pair is the common case, and growing would take half as much again. */
    edits.capacity = adapter->pair_count + adapter->saved_count + 1;
    edits.list = malloc(edits.capacity * sizeof(*edits.list));
    if (!edits.list) {
        adapter_replicas_release(&replicas);
        return error_no_memory(err, "the list of edits");
    }
    tied_read_uses(&uses, model, options->facts);
    status = add_all(&edits, &context, err);
    adapter_replicas_release(&replicas);
    if (status) {
        adapter_edits_release(&edits);
        return status;
    }
    say_notes(&context);
    *out = edits;
    return 0;
}

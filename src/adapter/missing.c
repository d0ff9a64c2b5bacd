#include "adapter/edit.h"

#include <stdlib.h>
#include <string.h>

#define WEIGHT ".weight"
#define WEIGHT_BYTES (sizeof(WEIGHT) - 1)

/* Which tensors of the base the edits change: one flag each, shard after shard. */
static bool *mark_edited(const struct adapter_edits *edits, const struct model *model)
{
    bool *edited = calloc(model->tensor_count + 1, sizeof(*edited));
    size_t *first = calloc(model->shard_count + 1, sizeof(*first));

    for (size_t s = 0; first && s < model->shard_count; s++)
        first[s + 1] = first[s] + model->shards[s].header.tensor_count;
    for (size_t i = 0; edited && first && i < edits->count; i++) {
        const struct adapter_edit *edit = &edits->list[i];

        if (edit->side != EDIT_UNTIED || !edit->new_name)
            edited[first[edit->tensor.shard] + edit->tensor.tensor] = true;
    }
    if (!first) {
        free(edited);
        edited = NULL;
    }
    free(first);
    return edited;
}

/* Is this a weight of a module that LoRA would be put on, and which has none? */
static int is_missing(bool *missing, const struct adapter *adapter, const struct st_header *header,
                      const struct st_tensor *tensor, struct error *err)
{
    const char *name = st_name(header, tensor);
    size_t bytes = tensor->name_bytes;
    char module[ST_NAME_BYTES_MAX + 1];

    *missing = false;
    if (tensor->shape_count != 2 || bytes <= WEIGHT_BYTES || bytes > ST_NAME_BYTES_MAX ||
        memcmp(name + bytes - WEIGHT_BYTES, WEIGHT, WEIGHT_BYTES) != 0 || memchr(name, '\0', bytes))
        return 0;
    memcpy(module, name, bytes - WEIGHT_BYTES);
    module[bytes - WEIGHT_BYTES] = '\0';
    return adapter_config_targets(&adapter->config, module, missing, err);
}

int adapter_count_missing(const struct adapter *adapter, const struct adapter_edits *edits,
                          const struct model *model, const char **names, size_t count,
                          size_t *missing, struct error *err)
{
    const struct module_matcher *targets = &adapter->config.target_modules;
    bool *edited;
    size_t number = 0;
    int status = 0;

    *missing = 0;
    /* "All linear layers" depends on the model's code, and nothing at all on its defaults. */
    if (!targets->present || targets->all)
        return 0;
    edited = mark_edited(edits, model);
    if (!edited)
        return error_no_memory(err, "the list of edits");
    for (size_t s = 0; s < model->shard_count && !status; s++) {
        const struct st_header *header = &model->shards[s].header;

        for (size_t t = 0; t < header->tensor_count && !status; t++, number++) {
            bool found = false;

            if (!edited[number])
                status = is_missing(&found, adapter, header, &header->tensors[t], err);
            if (found && *missing < count)
                names[*missing] = st_name(header, &header->tensors[t]);
            *missing += found;
        }
    }
    free(edited);
    return status;
}

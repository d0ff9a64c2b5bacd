#include "adapter/edit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Far above any model; the number of the copy is counted anew for each tensor. */
#define LAYERS_MAX 4096u

bool adapter_name_layer(const char *name, size_t bytes, size_t *begin, size_t *end)
{
    size_t at = 0;

    while (at < bytes) {
        const char *dot = memchr(name + at, '.', bytes - at);
        size_t stop = dot ? (size_t)(dot - name) : bytes;
        size_t digits = at;

        while (digits < stop && name[digits] >= '0' && name[digits] <= '9')
            digits++;
        if (at && digits > at && digits == stop) {
            *begin = at;
            *end = stop;
            return true;
        }
        at = stop + 1;
    }
    return false;
}

/* Which layers below LAYERS_MAX the base has. */
static void read_base_layers(bool has[LAYERS_MAX], const struct model *model)
{
    for (size_t i = 0; i < model->tensor_count; i++) {
        const struct st_tensor *tensor = model_tensor(model, model->by_name[i]);
        const char *name = st_name(model_header(model, model->by_name[i]), tensor);
        uint64_t number = 0;
        size_t begin;
        size_t end;

        if (!adapter_name_layer(name, tensor->name_bytes, &begin, &end))
            continue;
        for (size_t at = begin; at < end && number < LAYERS_MAX; at++)
            number = number * 10 + (uint64_t)(name[at] - '0');
        if (number < LAYERS_MAX)
            has[number] = true;
    }
}

static int add_range(struct adapter_replicas *replicas, const bool has[LAYERS_MAX],
                     const uint64_t range[2], struct error *err)
{
    for (uint64_t layer = range[0]; layer < range[1]; layer++) {
        if (layer >= LAYERS_MAX || !has[layer])
            return error_set(err, ERR_MISMATCH,
                             "'layer_replication' repeats the layers %" PRIu64 " to %" PRIu64
                             ", but the base has no layer %" PRIu64,
                             range[0], range[1] - 1, layer);
        if (replicas->count == LAYERS_MAX)
            return error_set(err, ERR_MISMATCH,
                             "'layer_replication' makes a model of more than %u layers",
                             LAYERS_MAX);
        replicas->base_layer[replicas->count++] = layer;
    }
    return 0;
}

int adapter_find_replicas(struct adapter_replicas *out, const struct adapter *adapter,
                          const struct model *model, struct error *err)
{
    const struct adapter_config *config = &adapter->config;
    struct adapter_replicas replicas = { 0 };
    bool has[LAYERS_MAX] = { false };
    int status = 0;

    *out = replicas;
    if (!config->layer_replication_count)
        return 0;
    replicas.base_layer = calloc(LAYERS_MAX, sizeof(*replicas.base_layer));
    if (!replicas.base_layer)
        return error_no_memory(err, "the repeated layers");
    read_base_layers(has, model);
    for (size_t i = 0; i < config->layer_replication_count && !status; i++)
        status = add_range(&replicas, has, config->layer_replication[i], err);
    if (!status) {
        *out = replicas;
        return 0;
    }
    adapter_replicas_release(&replicas);
    return status;
}

void adapter_replicas_release(struct adapter_replicas *replicas)
{
    free(replicas->base_layer);
    *replicas = (struct adapter_replicas){ 0 };
}

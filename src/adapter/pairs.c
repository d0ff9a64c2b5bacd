#include "adapter/pairs.h"

#include "adapter/directory.h"
#include "adapter/edit.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What all steps need while the tensors find their places. */
struct builder {
    struct adapter *adapter;
    bool allow_unused;
    bool warned; /* of alpha_pattern: once is enough */
    const struct log *log;
};

static const char *quote(char buf[QUOTED_BYTES], const char *text)
{
    return error_quote(buf, QUOTED_BYTES, text, strlen(text));
}

/*
 * PEFT sorts the keys of alpha_pattern when it saves, and takes the first that matches: where two
 * match, a loaded adapter may be scaled otherwise than it was in training.
 */
static int warn_of_alphas(struct builder *builder, const char *module, struct error *err)
{
    const struct adapter_config *config = &builder->adapter->config;
    const struct pattern_value *first = NULL;
    char quoted[3][QUOTED_BYTES];

    for (size_t i = 0; i < config->alpha_pattern_count && !builder->warned; i++) {
        const struct pattern_value *value = &config->alpha_pattern[i];
        bool matched;
        int status = pattern_match(value->pattern, module, strlen(module), &matched, err);

        if (status)
            return status;
        if (!matched)
            continue;
        if (first && value->value != first->value) {
            log_say(builder->log, LOG_WARNING,
                    "adapter '%s': module '%s' is matched by '%s' and '%s' of alpha_pattern, with "
                    "different values; the first counts, as when PEFT loads the adapter, but the "
                    "order may have been another in training",
                    builder->adapter->name, quote(quoted[0], module), quote(quoted[1], first->text),
                    quote(quoted[2], value->text));
            builder->warned = true;
        }
        if (!first)
            first = value;
    }
    return 0;
}

/* Does target_parameters name something in this module?  Its last component is the parameter. */
static bool has_parameter(const struct adapter_config *config, const char *module)
{
    size_t bytes = strlen(module);

    for (size_t i = 0; i < config->target_parameters_count; i++) {
        const char *entry = config->target_parameters[i];
        const char *dot = strrchr(entry, '.');
        size_t count = dot ? (size_t)(dot - entry) : 0;

        if (count == 0)
            return true;
        if (count <= bytes && memcmp(module + bytes - count, entry, count) == 0 &&
            (count == bytes || module[bytes - count - 1] == '.'))
            return true;
    }
    return false;
}

/*
 * With ensure_weight_tying PEFT gives the other side of a tie factors as well, and writes only the
 * side that was asked for into target_modules.
 */
static int is_tied_side(const char *module, bool *tied, struct error *err)
{
    struct text name = { 0 };
    int status = 0;

    text_addf(&name, "%s.weight", module);
    if (name.failed)
        status = error_no_memory(err, "a tensor name");
    else
        *tied = adapter_tensor_use(name.data, name.bytes) != EDIT_UNTIED;
    text_release(&name);
    return status;
}

/*
 * Find rank and scale of a pair in the configuration; *explained is false if it does not speak of
 * it.  PEFT gives the output projection of an attention layer what the layer has itself.
 */
static int configure_pair(struct builder *builder, struct adapter_pair *pair, size_t owner_bytes,
                          bool *explained, struct error *err)
{
    const struct adapter_config *config = &builder->adapter->config;
    bool inside = owner_bytes && strcmp(pair->module + owner_bytes, ".out_proj") == 0;
    bool parameter;
    char *owner;
    int status;

    owner = strdup(pair->module);
    if (!owner)
        return error_no_memory(err, "a module name");
    if (inside)
        owner[owner_bytes] = '\0';
    status = adapter_config_targets(config, owner, explained, err);
    if (inside && !status && !*explained) {
        owner[owner_bytes] = '.';
        status = adapter_config_targets(config, owner, explained, err);
    }
    if (!status && !*explained && config->tie)
        status = is_tied_side(pair->module, explained, err);
    parameter = config->type == ADAPTER_LORA && pair->layer == ADAPTER_LAYER_WEIGHT &&
                has_parameter(config, pair->module);
    if (!status && parameter && (pair->depth || !*explained || config->target_modules.all)) {
        *explained = true;
        pair->parameter = true;
    } else if (!status && pair->depth) {
        *explained = false;
    } else if (!status && *explained) {
        status = adapter_config_module(config, owner, &pair->rank, &pair->scale, err);
        if (!status)
            status = warn_of_alphas(builder, owner, err);
    }
    free(owner);
    return status;
}

/* Put the tensors of one module into the places of its pair. */
static int fill_pair(const struct adapter *adapter, struct adapter_pair *pair,
                     const struct adapter_item *items, size_t count, struct error *err)
{
    static const char *const names[] = { "lora_A", "lora_B", "lora_B.bias",
                                         "lora_magnitude_vector" };
    uint32_t tensors[4] = { ADAPTER_NO_TENSOR, ADAPTER_NO_TENSOR, ADAPTER_NO_TENSOR,
                            ADAPTER_NO_TENSOR };
    enum adapter_layer layers[2] = { ADAPTER_LAYER_WEIGHT, ADAPTER_LAYER_WEIGHT };
    char quoted[3][QUOTED_BYTES];

    quote(quoted[0], items[0].key.path);
    for (size_t i = 0; i < count; i++) {
        enum adapter_key_kind kind = items[i].key.kind;

        if (tensors[kind] != ADAPTER_NO_TENSOR)
            return error_set(err, ERR_FORMAT, "module '%s' has two tensors for %s, '%s' and '%s'",
                             quoted[0], names[kind],
                             adapter_quote_tensor(quoted[1], adapter, tensors[kind]),
                             adapter_quote_tensor(quoted[2], adapter, items[i].tensor));
        tensors[kind] = items[i].tensor;
        if (kind <= ADAPTER_KEY_B)
            layers[kind] = items[i].key.layer;
    }
    for (int i = ADAPTER_KEY_A; i <= ADAPTER_KEY_B; i++) {
        if (tensors[i] == ADAPTER_NO_TENSOR)
            return error_set(err, ERR_FORMAT, "tensor '%s' has no partner %s of module '%s'",
                             adapter_quote_tensor(quoted[1], adapter, items[0].tensor), names[i],
                             quoted[0]);
    }
    if (layers[0] != layers[1])
        return error_set(err, ERR_FORMAT,
                         "module '%s' has one factor of an embedding and one of another layer, "
                         "'%s' and '%s'",
                         quoted[0], adapter_quote_tensor(quoted[1], adapter, tensors[0]),
                         adapter_quote_tensor(quoted[2], adapter, tensors[1]));
    *pair = (struct adapter_pair){ .layer = layers[0],
                                   .depth = items[0].key.depth,
                                   .tensor_a = tensors[ADAPTER_KEY_A],
                                   .tensor_b = tensors[ADAPTER_KEY_B],
                                   .tensor_b_bias = tensors[ADAPTER_KEY_B_BIAS],
                                   .tensor_magnitude = tensors[ADAPTER_KEY_MAGNITUDE],
                                   .tensor_base = ADAPTER_NO_TENSOR };
    return 0;
}

/* Drop what the configuration does not speak of, as PEFT does, but only where that is allowed. */
static int drop_ignored(struct adapter *adapter, uint32_t *tensor, bool configured,
                        struct error *err)
{
    int status;

    if (configured || *tensor == ADAPTER_NO_TENSOR)
        return 0;
    status = adapter_add_unused(adapter, *tensor, err);
    *tensor = ADAPTER_NO_TENSOR;
    return status;
}

static int drop_pair(struct builder *builder, const struct adapter_item *items, size_t count,
                     struct error *err)
{
    struct adapter *adapter = builder->adapter;
    char quoted[2][QUOTED_BYTES];

    for (size_t i = 0; i < count && builder->allow_unused; i++) {
        if (adapter_add_unused(adapter, items[i].tensor, err))
            return err->code;
    }
    if (builder->allow_unused)
        return 0;
    return error_set(err, ERR_MISMATCH,
                     "tensor '%s' belongs to %s '%s', which " ADAPTER_CONFIG_FILE
                     " does not target (%s), so PEFT would ignore it; correct the configuration, "
                     "or pass --allow-unused",
                     adapter_quote_tensor(quoted[0], adapter, items[0].tensor),
                     items[0].key.depth ? "a parameter of module" : "module",
                     quote(quoted[1], items[0].key.path),
                     items[0].key.depth ? "target_parameters"
                                        : "target_modules, exclude_modules, layers_to_transform");
}

/* Tensors of one module, which are neighbours in the sorted list. */
static int add_pair(struct builder *builder, const struct adapter_item *items, size_t count,
                    struct error *err)
{
    struct adapter *adapter = builder->adapter;
    struct adapter_pair pair = { 0 };
    bool explained = false;
    int status = fill_pair(adapter, &pair, items, count, err);

    if (status)
        return status;
    pair.module = strdup(items[0].key.path);
    if (!pair.module)
        return error_no_memory(err, "a module name");
    status = configure_pair(builder, &pair, items[0].key.owner_bytes, &explained, err);
    if (!status && !explained)
        status = drop_pair(builder, items, count, err);
    if (!status && explained && builder->allow_unused) {
        status = drop_ignored(adapter, &pair.tensor_b_bias, adapter->config.lora_bias, err);
        if (!status)
            status = drop_ignored(adapter, &pair.tensor_magnitude, adapter->config.dora, err);
    }
    if (!status && explained)
        status = adapter_check_factors(adapter, &pair, err);
    if (status || !explained) {
        free(pair.module);
        return status;
    }
    if (pair.parameter)
        pair.rank = (uint32_t)st_shape(&adapter->header,
                                       &adapter->header.tensors[pair.tensor_a])[0];
    adapter->pairs[adapter->pair_count++] = pair;
    return 0;
}

static bool is_same_pair(const struct adapter_item *a, const struct adapter_item *b)
{
    return adapter_item_is_factor(b) && a->key.depth == b->key.depth &&
           strcmp(a->key.path, b->key.path) == 0;
}

static int place_items(struct builder *builder, const struct adapter_item *items, size_t count,
                       struct error *err)
{
    size_t begin = 0;
    int status = 0;

    while (begin < count && adapter_item_is_factor(&items[begin]) && !status) {
        size_t end = begin + 1;

        while (end < count && is_same_pair(&items[begin], &items[end]))
            end++;
        status = add_pair(builder, items + begin, end - begin, err);
        begin = end;
    }
    if (status)
        return status;
    return adapter_build_saved(builder->adapter, items + begin, count - begin,
                               builder->allow_unused, err);
}

int adapter_build_pairs(struct adapter *adapter, bool allow_unused, const struct log *log,
                        struct error *err)
{
    size_t count = adapter->header.tensor_count;
    struct builder builder = { .adapter = adapter, .allow_unused = allow_unused, .log = log };
    struct adapter_item *items = calloc(count + 1, sizeof(*items));
    size_t item_count = 0;
    int status;

    adapter->pairs = calloc(count / 2 + 1, sizeof(*adapter->pairs));
    adapter->saved = calloc(count + 1, sizeof(*adapter->saved));
    adapter->unused = calloc(count + 1, sizeof(*adapter->unused));
    if (!items || !adapter->pairs || !adapter->saved || !adapter->unused)
        status = error_no_memory(err, "the tensors of an adapter");
    else
        status = adapter_read_items(adapter, items, &item_count, allow_unused, log, err);
    if (!status)
        status = place_items(&builder, items, item_count, err);
    if (!status && adapter->pair_count == 0 && adapter->saved_count == 0)
        status = error_set(err, ERR_FORMAT,
                           "none of its %zu tensors is a low-rank factor or stands for a tensor of "
                           "the base",
                           count);
    for (size_t i = 0; i < item_count; i++)
        free(items[i].key.path);
    free(items);
    return status;
}

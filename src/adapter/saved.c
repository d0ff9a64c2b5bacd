#include "adapter/directory.h"
#include "adapter/pairs.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* What a saved tensor is a tensor of: the module before the last dot of its name. */
static size_t module_bytes(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot ? (size_t)(dot - name) : 0;
}

static int compare_with_pair(const char *module, size_t bytes, const struct adapter_pair *pair)
{
    int order = strncmp(module, pair->module, bytes);

    return order ? order : -(pair->module[bytes] != '\0');
}

struct adapter_pair *adapter_find_pair(const struct adapter *adapter, const char *module,
                                       size_t bytes)
{
    size_t low = 0;
    size_t high = adapter->pair_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (compare_with_pair(module, bytes, &adapter->pairs[middle]) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == adapter->pair_count || compare_with_pair(module, bytes, &adapter->pairs[low]))
        return NULL;
    return &adapter->pairs[low];
}

/* PEFT saves input and output embeddings whole when they have been resized. */
static bool is_in_embedding(const char *name)
{
    static const char *const embeddings[] = { "embed_tokens",      "lm_head",          "wte",
                                              "embed_in",          "embed_out",        "embeddings",
                                              "embedding",         "output",           "shared",
                                              "word_embeddings",   "tok_embeddings",   "head",
                                              "output_projection", "proj_out",         "decoder",
                                              "vocab_projector",   "generator_lm_head" };
    size_t bytes = module_bytes(name);
    size_t begin = bytes;

    while (begin > 0 && name[begin - 1] != '.')
        begin--;
    for (size_t i = 0; i < COUNT(embeddings); i++) {
        if (strlen(embeddings[i]) == bytes - begin &&
            memcmp(name + begin, embeddings[i], bytes - begin) == 0)
            return true;
    }
    return false;
}

static bool is_explained(struct adapter *adapter, const char *name, const char *module)
{
    const struct adapter_config *config = &adapter->config;
    size_t bytes = module_bytes(name);

    if (adapter_config_saves(config, module) || is_in_embedding(name))
        return true;
    /* Before 0.21 PEFT took each name that has the word in it for one of a bias. */
    if (config->bias == ADAPTER_BIAS_ALL)
        return strstr(name, "bias") != NULL;
    return config->bias == ADAPTER_BIAS_LORA_ONLY && strcmp(name + bytes, ".bias") == 0 &&
           adapter_find_pair(adapter, name, bytes) != NULL;
}

static int refuse_unexplained(const struct adapter *adapter, const struct adapter_item *item,
                              struct error *err)
{
    const char *end = item->key.path + module_bytes(item->key.path);
    char quoted[QUOTED_BYTES];

    adapter_quote_tensor(quoted, adapter, item->tensor);
    if (item->key.form == ADAPTER_FORM_ORIGINAL)
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' is a copy of the base's own, and the trained one is not in "
                         "the file; --allow-unused leaves it out",
                         quoted);
    if (strcmp(end, ".weight") != 0 && strcmp(end, ".bias") != 0)
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' is not a tensor of a LoRA adapter that is understood; "
                         "--allow-unused leaves it out",
                         quoted);
    return error_set(err, ERR_MISMATCH,
                     "tensor '%s' would replace one of the base, but the file has no factors for "
                     "it and " ADAPTER_CONFIG_FILE " names it neither in modules_to_save nor with "
                     "bias; correct the configuration, or pass --allow-unused",
                     quoted);
}

static int add_saved(struct adapter *adapter, enum adapter_saved_kind kind,
                     const struct adapter_item *item, struct error *err)
{
    struct adapter_saved *saved = &adapter->saved[adapter->saved_count];

    *saved = (struct adapter_saved){ .kind = kind, .tensor = item->tensor };
    saved->name = strdup(item->key.path);
    if (!saved->name)
        return error_no_memory(err, "a tensor name");
    adapter->saved_count++;
    return 0;
}

/* A tensor that counts instead of one of the base: with factors on top, or alone. */
static int place_tensor(struct adapter *adapter, const struct adapter_item *item, bool allow_unused,
                        struct error *err)
{
    const char *name = item->key.path;
    size_t bytes = module_bytes(name);
    struct adapter_pair *pair = adapter_find_pair(adapter, name, bytes);
    char *module;
    bool explained;
    int status;

    if (item->key.form != ADAPTER_FORM_ORIGINAL) {
        if (pair && !pair->parameter && strcmp(name + bytes, ".weight") == 0) {
            status = adapter_check_copy(adapter, pair, item->tensor, err);
            if (!status)
                pair->tensor_base = item->tensor;
            return status;
        }
        module = strndup(name, bytes);
        if (!module)
            return error_no_memory(err, "a module name");
        explained = is_explained(adapter, name, module);
        free(module);
        if (explained)
            return add_saved(adapter, ADAPTER_SAVED_TENSOR, item, err);
    }
    if (allow_unused)
        return adapter_add_unused(adapter, item->tensor, err);
    return refuse_unexplained(adapter, item, err);
}

/* Rows of trained tokens: the configuration says which rows they are. */
static int place_rows(struct adapter *adapter, const struct adapter_item *item, bool allow_unused,
                      struct error *err)
{
    const struct st_tensor *tensor = &adapter->header.tensors[item->tensor];
    const uint64_t *shape = st_shape(&adapter->header, tensor);
    const struct token_rows *rows;
    char *module = strndup(item->key.path, module_bytes(item->key.path));
    char quoted[QUOTED_BYTES];

    if (!module)
        return error_no_memory(err, "a module name");
    rows = adapter_config_tokens(&adapter->config, module);
    free(module);
    if (!rows && allow_unused)
        return adapter_add_unused(adapter, item->tensor, err);
    adapter_quote_tensor(quoted, adapter, item->tensor);
    if (!rows)
        return error_set(err, ERR_MISMATCH,
                         "tensor '%s' holds rows of tokens, but " ADAPTER_CONFIG_FILE
                         " does not say which (trainable_token_indices), so PEFT would ignore it; "
                         "correct the configuration, or pass --allow-unused",
                         quoted);
    if (tensor->shape_count != 2 || shape[0] != rows->count || shape[1] == 0)
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' is not a matrix of %zu rows, which is how many tokens "
                         "trainable_token_indices of " ADAPTER_CONFIG_FILE " has",
                         quoted, rows->count);
    return add_saved(adapter, ADAPTER_SAVED_ROWS, item, err);
}

int adapter_build_saved(struct adapter *adapter, const struct adapter_item *items, size_t count,
                        bool allow_unused, struct error *err)
{
    char quoted[3][QUOTED_BYTES];

    for (size_t i = 0; i < count; i++) {
        const struct adapter_item *item = &items[i];
        const struct adapter_item *last = i > 0 ? &items[i - 1] : NULL;
        int status;

        if (last && last->key.kind == item->key.kind &&
            strcmp(last->key.path, item->key.path) == 0) {
            /* Another form of what has its place already, or of another copy of it. */
            if (last->key.form != item->key.form)
                continue;
            return error_set(
                err, ERR_FORMAT, "both '%s' and '%s' stand for '%s'",
                adapter_quote_tensor(quoted[0], adapter, last->tensor),
                adapter_quote_tensor(quoted[1], adapter, item->tensor),
                error_quote(quoted[2], sizeof(quoted[2]), item->key.path, strlen(item->key.path)));
        }
        status = item->key.kind == ADAPTER_KEY_ROWS
                     ? place_rows(adapter, item, allow_unused, err)
                     : place_tensor(adapter, item, allow_unused, err);
        if (status)
            return status;
    }
    return 0;
}

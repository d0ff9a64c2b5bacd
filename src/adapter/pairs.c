#include "adapter/pairs.h"

#include "adapter/directory.h"
#include "adapter/key.h"
#include "base/dtype.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One factor on its way into a pair. */
struct factor {
    const char *module; /* in header.names */
    size_t module_bytes;
    uint32_t tensor;
    bool is_b;
};

static const char *quote(char buf[QUOTED_BYTES], const char *text)
{
    return error_quote(buf, QUOTED_BYTES, text, strlen(text));
}

static const char *quote_tensor(char buf[QUOTED_BYTES], const struct adapter *adapter,
                                uint32_t tensor)
{
    const struct st_tensor *t = &adapter->header.tensors[tensor];

    return error_quote(buf, QUOTED_BYTES, st_name(&adapter->header, t), t->name_bytes);
}

static int add_unused(struct adapter *adapter, uint32_t tensor, struct error *err)
{
    const struct st_tensor *t = &adapter->header.tensors[tensor];
    char *name = strndup(st_name(&adapter->header, t), t->name_bytes);

    if (!name)
        return error_no_memory(err, "a tensor name");
    adapter->unused[adapter->unused_count++] = name;
    return 0;
}

int adapter_leave_out(struct adapter *adapter, const struct adapter_key *key, uint32_t tensor,
                      bool allow_unused, struct error *err)
{
    const struct st_tensor *t = &adapter->header.tensors[tensor];

    if (allow_unused)
        return add_unused(adapter, tensor, err);
    return adapter_key_refuse(key, st_name(&adapter->header, t), t->name_bytes, err);
}

static int compare_factors(const void *left, const void *right)
{
    const struct factor *a = left;
    const struct factor *b = right;
    size_t shared = a->module_bytes < b->module_bytes ? a->module_bytes : b->module_bytes;
    int order = memcmp(a->module, b->module, shared);

    if (order == 0)
        order = (a->module_bytes > b->module_bytes) - (a->module_bytes < b->module_bytes);
    if (order == 0)
        order = a->is_b - b->is_b;
    return order ? order : (a->tensor > b->tensor) - (a->tensor < b->tensor);
}

static bool same_module(const struct factor *a, const struct factor *b)
{
    return a->module_bytes == b->module_bytes && memcmp(a->module, b->module, a->module_bytes) == 0;
}

/* Sort the tensors of the file into factors and `unused`. */
static int collect_factors(struct adapter *adapter, struct factor *factors, size_t *factor_count,
                           bool allow_unused, struct error *err)
{
    for (size_t i = 0; i < adapter->header.tensor_count; i++) {
        const struct st_tensor *tensor = &adapter->header.tensors[i];
        const char *name = st_name(&adapter->header, tensor);
        struct adapter_key key;
        int status = 0;

        adapter_key_read(&key, name, tensor->name_bytes);
        if (key.kind == ADAPTER_KEY_BASE)
            continue; /* needs the pairs: adapter_attach_copies() */
        if (key.kind != ADAPTER_KEY_OTHER)
            factors[(*factor_count)++] = (struct factor){ key.module, key.module_bytes, (uint32_t)i,
                                                          key.kind == ADAPTER_KEY_B };
        else
            status = adapter_leave_out(adapter, &key, (uint32_t)i, allow_unused, err);
        if (status)
            return status;
    }
    qsort(factors, *factor_count, sizeof(*factors), compare_factors);
    return 0;
}

/* Shapes and dtypes of the two factors of a module. */
static int check_factors(const struct adapter *adapter, const struct adapter_pair *pair,
                         struct error *err)
{
    char quoted[QUOTED_BYTES];
    uint64_t ranks[2];

    for (int i = 0; i < 2; i++) {
        uint32_t index = i ? pair->tensor_b : pair->tensor_a;
        const struct st_tensor *tensor = &adapter->header.tensors[index];
        const uint64_t *shape = st_shape(&adapter->header, tensor);

        if (!dtype_is_computed((enum dtype)tensor->dtype))
            return error_set(err, ERR_FORMAT, "tensor '%s' is %s; factors are BF16, F16 or F32",
                             quote_tensor(quoted, adapter, index),
                             dtype_name((enum dtype)tensor->dtype));
        if (tensor->shape_count != 2)
            return error_set(err, ERR_FORMAT,
                             "tensor '%s' has %u dimensions; factors of linear layers have 2, and "
                             "others are not supported by this version",
                             quote_tensor(quoted, adapter, index), (unsigned)tensor->shape_count);
        if (shape[0] == 0 || shape[1] == 0)
            return error_set(err, ERR_FORMAT, "tensor '%s' is empty",
                             quote_tensor(quoted, adapter, index));
        ranks[i] = shape[i];
    }
    if (ranks[0] != ranks[1])
        return error_set(err, ERR_FORMAT,
                         "module '%s' has an A factor of rank %" PRIu64 " and a B factor of rank "
                         "%" PRIu64,
                         quote(quoted, pair->module), ranks[0], ranks[1]);
    if (ranks[0] != pair->rank)
        return error_set(err, ERR_FORMAT,
                         "module '%s' has factors of rank %" PRIu64
                         ", but r and rank_pattern of " ADAPTER_CONFIG_FILE " give %u",
                         quote(quoted, pair->module), ranks[0], pair->rank);
    return 0;
}

/* Two factors of one module that are next to each other in the sorted list, or a refusal. */
static int check_partners(const struct adapter *adapter, const struct factor *a,
                          const struct factor *b, struct error *err)
{
    char quoted[QUOTED_BYTES];
    char quoted_module[QUOTED_BYTES];

    if (!same_module(a, b))
        return error_set(
            err, ERR_FORMAT, "tensor '%s' has no partner lora_%c of module '%s'",
            quote_tensor(quoted, adapter, a->tensor), a->is_b ? 'A' : 'B',
            error_quote(quoted_module, sizeof(quoted_module), a->module, a->module_bytes));
    if (a->is_b == b->is_b)
        return error_set(
            err, ERR_FORMAT, "module '%s' has two tensors for lora_%c, one of them '%s'",
            error_quote(quoted_module, sizeof(quoted_module), a->module, a->module_bytes),
            a->is_b ? 'B' : 'A', quote_tensor(quoted, adapter, b->tensor));
    return 0;
}

/*
 * PEFT sorts the keys of alpha_pattern when it saves, and takes the first that matches: where two
 * match, a loaded adapter may be scaled otherwise than it was in training.
 */
static int warn_of_alphas(const struct adapter *adapter, const char *module, bool *warned,
                          const struct log *log, struct error *err)
{
    const struct adapter_config *config = &adapter->config;
    const struct pattern_value *first = NULL;
    char quoted[3][QUOTED_BYTES];

    for (size_t i = 0; i < config->alpha_pattern_count && !*warned; i++) {
        const struct pattern_value *value = &config->alpha_pattern[i];
        bool matched;
        int status = pattern_match(value->pattern, module, strlen(module), &matched, err);

        if (status)
            return status;
        if (!matched)
            continue;
        if (first && value->value != first->value) {
            log_say(log, LOG_WARNING,
                    "adapter '%s': module '%s' is matched by '%s' and '%s' of alpha_pattern, with "
                    "different values; the first counts, as when PEFT loads the adapter, but the "
                    "order may have been another in training",
                    adapter->name, quote(quoted[0], module), quote(quoted[1], first->text),
                    quote(quoted[2], value->text));
            *warned = true;
        }
        if (!first)
            first = value;
    }
    return 0;
}

static int add_pair(struct adapter *adapter, const struct factor *a, const struct factor *b,
                    bool allow_unused, bool *warned, const struct log *log, struct error *err)
{
    struct adapter_pair *pair = &adapter->pairs[adapter->pair_count];
    char quoted[QUOTED_BYTES];
    char quoted_module[QUOTED_BYTES];
    bool targeted;
    int status;

    *pair = (struct adapter_pair){ .tensor_a = a->tensor,
                                   .tensor_b = b->tensor,
                                   .tensor_base = ADAPTER_NO_TENSOR };
    pair->module = strndup(a->module, a->module_bytes);
    if (!pair->module)
        return error_no_memory(err, "a module name");
    adapter->pair_count++;

    status = adapter_config_targets(&adapter->config, pair->module, &targeted, err);
    if (status)
        return status;
    if (targeted) {
        status = adapter_config_module(&adapter->config, pair->module, &pair->rank, &pair->scale,
                                       err);
        if (!status)
            status = check_factors(adapter, pair, err);
        return status ? status : warn_of_alphas(adapter, pair->module, warned, log, err);
    }
    if (!allow_unused)
        return error_set(err, ERR_MISMATCH,
                         "tensor '%s' belongs to module '%s', which " ADAPTER_CONFIG_FILE
                         " does not target (target_modules, exclude_modules, layers_to_transform), "
                         "so PEFT would ignore it; correct the configuration, or pass "
                         "--allow-unused",
                         quote_tensor(quoted, adapter, a->tensor),
                         quote(quoted_module, pair->module));
    free(pair->module);
    adapter->pair_count--;
    status = add_unused(adapter, a->tensor, err);
    return status ? status : add_unused(adapter, b->tensor, err);
}

int adapter_build_pairs(struct adapter *adapter, bool allow_unused, const struct log *log,
                        struct error *err)
{
    size_t count = adapter->header.tensor_count;
    struct factor *factors = calloc(count + 1, sizeof(*factors));
    size_t factor_count = 0;
    bool warned = false;
    int status = 0;

    adapter->pairs = calloc(count / 2 + 1, sizeof(*adapter->pairs));
    adapter->unused = calloc(count + 1, sizeof(*adapter->unused));
    if (!factors || !adapter->pairs || !adapter->unused) {
        status = error_no_memory(err, "the tensors of an adapter");
        goto out;
    }
    status = collect_factors(adapter, factors, &factor_count, allow_unused, err);
    for (size_t i = 0; i < factor_count && !status; i += 2) {
        const struct factor *next = &factors[i + 1]; /* all zero behind the last */

        status = check_partners(adapter, &factors[i], next, err);
        if (!status)
            status = add_pair(adapter, &factors[i], next, allow_unused, &warned, log, err);
    }
    if (!status)
        status = adapter_attach_copies(adapter, allow_unused, err);
    if (!status && adapter->pair_count == 0)
        status = error_set(err, ERR_FORMAT,
                           "none of its %zu tensors is a low-rank factor that can be folded",
                           count);
out:
    free(factors);
    return status;
}

#include "adapter/key.h"
#include "adapter/pairs.h"

#include <inttypes.h>
#include <string.h>

/* The pair of a module, by bisection in the sorted list; NULL if there is none. */
static struct adapter_pair *find_pair(struct adapter *adapter, const struct adapter_key *key)
{
    size_t low = 0;
    size_t high = adapter->pair_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const char *module = adapter->pairs[middle].module;
        int order = strncmp(module, key->module, key->module_bytes);

        if (order == 0 && module[key->module_bytes] == '\0')
            return &adapter->pairs[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static int attach(struct adapter *adapter, struct adapter_pair *pair, uint32_t index,
                  struct error *err)
{
    const struct st_header *header = &adapter->header;
    const struct st_tensor *tensor = &header->tensors[index];
    const uint64_t *shape = st_shape(header, tensor);
    uint64_t rows = st_shape(header, &header->tensors[pair->tensor_b])[0];
    uint64_t cols = st_shape(header, &header->tensors[pair->tensor_a])[1];
    char quoted[QUOTED_BYTES];

    error_quote(quoted, sizeof(quoted), st_name(header, tensor), tensor->name_bytes);
    if (!dtype_is_computed((enum dtype)tensor->dtype))
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' is %s; weights that are folded are BF16, "
                         "F16 or F32",
                         quoted, dtype_name((enum dtype)tensor->dtype));
    if (tensor->shape_count != 2 || shape[0] != rows || shape[1] != cols)
        return error_set(err, ERR_FORMAT,
                         "tensor '%s' does not have the shape [%" PRIu64 ", %" PRIu64
                         "] of its factors",
                         quoted, rows, cols);
    pair->tensor_base = index;
    return 0;
}

int adapter_attach_copies(struct adapter *adapter, bool allow_unused, struct error *err)
{
    for (size_t i = 0; i < adapter->header.tensor_count; i++) {
        const struct st_tensor *tensor = &adapter->header.tensors[i];
        const char *name = st_name(&adapter->header, tensor);
        struct adapter_pair *pair;
        struct adapter_key key;
        int status;

        adapter_key_read(&key, name, tensor->name_bytes);
        if (key.kind != ADAPTER_KEY_BASE)
            continue;
        pair = find_pair(adapter, &key);
        if (pair)
            status = attach(adapter, pair, (uint32_t)i, err);
        else
            status = adapter_leave_out(adapter, &key, (uint32_t)i, allow_unused, err);
        if (status)
            return status;
    }
    return 0;
}

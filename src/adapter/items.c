#include "adapter/pairs.h"

#include <stdlib.h>
#include <string.h>

const char *adapter_quote_tensor(char buf[QUOTED_BYTES], const struct adapter *adapter,
                                 uint32_t tensor)
{
    const struct st_tensor *t = &adapter->header.tensors[tensor];

    return error_quote(buf, QUOTED_BYTES, st_name(&adapter->header, t), t->name_bytes);
}

int adapter_add_unused(struct adapter *adapter, uint32_t tensor, struct error *err)
{
    const struct st_tensor *t = &adapter->header.tensors[tensor];
    char *name = strndup(st_name(&adapter->header, t), t->name_bytes);

    if (!name)
        return error_no_memory(err, "a tensor name");
    adapter->unused[adapter->unused_count++] = name;
    return 0;
}

bool adapter_item_is_factor(const struct adapter_item *item)
{
    return item->key.kind <= ADAPTER_KEY_MAGNITUDE;
}

static int compare_items(const void *left, const void *right)
{
    const struct adapter_item *a = left;
    const struct adapter_item *b = right;
    int order = adapter_item_is_factor(b) - adapter_item_is_factor(a);

    if (order == 0)
        order = strcmp(a->key.path, b->key.path);
    if (order == 0)
        order = (a->key.depth > b->key.depth) - (a->key.depth < b->key.depth);
    if (order == 0)
        order = (int)a->key.kind - (int)b->key.kind;
    if (order == 0)
        order = (int)a->key.form - (int)b->key.form;
    return order ? order : (a->tensor > b->tensor) - (a->tensor < b->tensor);
}

char *adapter_find_name(const struct st_header *header)
{
    const char *first = NULL;
    size_t first_count = 0;

    for (size_t i = 0; i < header->tensor_count; i++) {
        const struct st_tensor *tensor = &header->tensors[i];
        const char *begin;
        size_t count;

        if (!adapter_key_find_name(st_name(header, tensor), tensor->name_bytes, &begin, &count))
            continue;
        if (count == 0 || (first && (count != first_count || memcmp(begin, first, count) != 0)))
            return strdup(ADAPTER_KEY_DEFAULT_NAME);
        first = begin;
        first_count = count;
    }
    return first ? strndup(first, first_count) : strdup(ADAPTER_KEY_DEFAULT_NAME);
}

int adapter_read_items(struct adapter *adapter, struct adapter_item *items, size_t *item_count,
                       bool allow_unused, const struct log *log, struct error *err)
{
    const struct st_header *header = &adapter->header;
    char *adapter_name = adapter_find_name(header);
    const struct adapter_item *odd = NULL;
    size_t odd_count = 0;
    char quoted[2][QUOTED_BYTES];
    int status = adapter_name ? 0 : error_no_memory(err, "an adapter's name");

    for (size_t i = 0; i < header->tensor_count && !status; i++) {
        const struct st_tensor *tensor = &header->tensors[i];
        const char *name = st_name(header, tensor);
        struct adapter_item *item = &items[*item_count];

        status = adapter_key_read(&item->key, name, tensor->name_bytes, adapter_name, err);
        item->tensor = (uint32_t)i;
        if (status || item->key.kind == ADAPTER_KEY_TRAINING)
            continue;
        if (item->key.kind == ADAPTER_KEY_OTHER) {
            status = allow_unused ? adapter_add_unused(adapter, item->tensor, err)
                                  : adapter_key_refuse(&item->key, name, tensor->name_bytes, err);
            continue;
        }
        if (item->key.odd && odd_count++ == 0)
            odd = item;
        (*item_count)++;
    }
    free(adapter_name);
    if (status)
        return status;
    if (odd)
        log_say(log, LOG_NOTICE,
                "adapter '%s': %zu of %zu tensors are not spelled as PEFT writes them; '%s', for "
                "one, is taken for '%s'",
                adapter->name, odd_count, header->tensor_count,
                adapter_quote_tensor(quoted[0], adapter, odd->tensor),
                error_quote(quoted[1], sizeof(quoted[1]), odd->key.path, strlen(odd->key.path)));
    qsort(items, *item_count, sizeof(*items), compare_items);
    return 0;
}

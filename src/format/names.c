#include "format/names.h"

#include <stdlib.h>
#include <string.h>

int name_compare(const char *left, size_t left_bytes, const char *right, size_t right_bytes)
{
    int order = memcmp(left, right, left_bytes < right_bytes ? left_bytes : right_bytes);

    if (order)
        return order;
    return left_bytes < right_bytes ? -1 : left_bytes > right_bytes;
}

static int compare_keys(const void *left, const void *right)
{
    const struct name_key *x = left;
    const struct name_key *y = right;
    int order = name_compare(x->name, x->bytes, y->name, y->bytes);

    if (order)
        return order;
    return x->index < y->index ? -1 : x->index > y->index;
}

void name_keys_sort(struct name_key *keys, size_t count)
{
    size_t sorted = 1;

    /* Most headers and indexes are written sorted. */
    while (sorted < count && compare_keys(&keys[sorted - 1], &keys[sorted]) <= 0)
        sorted++;
    if (sorted < count)
        qsort(keys, count, sizeof(*keys), compare_keys);
}

size_t name_keys_duplicate(const struct name_key *keys, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (keys[i].bytes == keys[i - 1].bytes &&
            memcmp(keys[i].name, keys[i - 1].name, keys[i].bytes) == 0)
            return i;
    }
    return 0;
}

/*
 * array.h - growth of an array that lives in a pointer, a count and a capacity
 *
 *     struct item *more = array_next(items, count, &capacity, sizeof(*items));
 *
 *     if (!more)
 *         return error_no_memory(err, "items");
 *     items = more;
 *     items[count++] = ...;
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_ARRAY_H
#define BASE_ARRAY_H

#include <stdint.h>
#include <stdlib.h>

/* A larger array with the same contents, or NULL: then the old one is as it was. */
static inline void *array_grow(void *items, size_t *capacity, size_t item_bytes)
{
    size_t wanted = *capacity < 8 ? 16 : *capacity + *capacity / 2;
    void *more = wanted > SIZE_MAX / 2 / item_bytes ? NULL : realloc(items, wanted * item_bytes);

    if (more)
        *capacity = wanted;
    return more;
}

/* The array with room for one item more, or NULL: then it is as it was. */
static inline void *array_next(void *items, size_t count, size_t *capacity, size_t item_bytes)
{
    return count < *capacity ? items : array_grow(items, capacity, item_bytes);
}

#endif

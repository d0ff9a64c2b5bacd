/*
 * array.h - growth of an array that lives in a pointer, a count and a capacity
 *
 *     if (count == capacity) {
 *         struct item *more = array_grow(items, &capacity, sizeof(*items));
 *
 *         if (!more)
 *             return error_no_memory(err, "items");
 *         items = more;
 *     }
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

#endif

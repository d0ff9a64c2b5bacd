/*
 * names.h - the order of many tensor names
 *
 * Duplicates are found and names are looked up by sorting: no input makes that
 * slower than n log n, as a hash with known seed can be.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_NAMES_H
#define FORMAT_NAMES_H

#include <stddef.h>
#include <stdint.h>

struct name_key {
    const char *name;
    uint32_t bytes;
    uint32_t index; /* the caller's */
};

/* By bytes, a prefix before what it begins. */
int name_compare(const char *left, size_t left_bytes, const char *right, size_t right_bytes);

/* Sort by name, equal names by index. */
void name_keys_sort(struct name_key *keys, size_t count);

/* After sorting: the first place whose name is also that of the place before it, or 0. */
size_t name_keys_duplicate(const struct name_key *keys, size_t count);

#endif

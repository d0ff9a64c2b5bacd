/*
 * naming_rules.h - the table that naming.c works by
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_NAMING_RULES_H
#define ADAPTER_NAMING_RULES_H

#include <stddef.h>

/*
 * Two spellings of the same components; each may stand for the other, wherever whole components
 * match.  With '^' before both only at the beginning of a name, behind its prefixes.  '#' is any
 * number, at most one in a spelling.
 */
struct naming_rule {
    const char *disk;
    const char *runtime;
};

extern const struct naming_rule naming_rules[];
extern const size_t naming_rule_count;

/* What may stand before a whole name, or be missing there. */
extern const char *const naming_prefixes[];
extern const size_t naming_prefix_count;

/* Components that wrap a module in training and are in no base. */
extern const char *const naming_wrappers[];
extern const size_t naming_wrapper_count;

#endif

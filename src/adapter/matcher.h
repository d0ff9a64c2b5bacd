/*
 * matcher.h - reading and releasing "this module" of a configuration
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_MATCHER_H
#define ADAPTER_MATCHER_H

#include "adapter/config.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

struct cJSON;

/*
 * Read the field `name` of `root`, null and absent included, into an all-zero matcher.  On failure
 * the caller still releases it.  `admits_all`: "all-linear" is a word and not an expression.
 */
int matcher_read(struct module_matcher *out, const struct cJSON *root, const char *name,
                 bool admits_all, struct error *err);
void matcher_release(struct module_matcher *matcher);

/*
 * A list of names that PEFT compares without a border at a dot.  A string alone is refused, since
 * PEFT takes it letter by letter.  At most MATCHER_LIST_MAX names, since each is tried.
 */
#define MATCHER_LIST_MAX 4096
int matcher_read_list(struct module_matcher *out, const struct cJSON *root, const char *name,
                      struct error *err);
int matcher_add_name(struct module_matcher *matcher, const char *name, struct error *err);
bool matcher_has_name(const struct module_matcher *matcher, const char *name);

/* *whole: the list has the name itself, not only an end of it. */
int matcher_match(const struct module_matcher *matcher, const char *name, bool *matched,
                  bool *whole, struct error *err);

/* Read a JSON array of strings; `field` is the array, or a string alone. */
int matcher_read_names(char ***out, size_t *out_count, const struct cJSON *field,
                       struct error *err);

/* The same without a string alone and without empty strings. */
int matcher_read_array(char ***out, size_t *out_count, const struct cJSON *field,
                       struct error *err);

#endif

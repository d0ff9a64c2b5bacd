/*
 * pattern.h - Python regular expressions as PEFT uses them, on PCRE2
 *
 * Only expressions that Python's re and PCRE2 read alike are admitted
 * (docs/ADAPTERS.md lists the subset); tests compare the two on random patterns.
 * The rest is ERR_FORMAT with the pattern, the position and what is not admitted.
 * Matching is bounded (PCRE2 match, depth and heap limits); reaching a bound is
 * ERR_FORMAT too, never a wrong answer.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_PATTERN_H
#define ADAPTER_PATTERN_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define PATTERN_BYTES_MAX 65536u

struct pattern;

enum pattern_anchor {
    PATTERN_FULLMATCH, /* re.fullmatch(p, name) */
    PATTERN_SUFFIX_KEY /* re.match(r"(.*\.)?(" + p + r")$", name): keys of rank_pattern (PEFT
                          utils/other.py get_pattern_key) */
};

int pattern_compile(struct pattern **out, const char *text, size_t bytes,
                    enum pattern_anchor anchor, struct error *err);
int pattern_match(const struct pattern *pattern, const char *name, size_t name_bytes, bool *matched,
                  struct error *err);
void pattern_free(struct pattern *pattern);

#endif

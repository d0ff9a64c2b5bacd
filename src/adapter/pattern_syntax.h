/*
 * pattern_syntax.h - which Python regular expressions are admitted, and their PCRE2 spelling
 *
 * What is admitted means the same to both engines: characters, '.', sets with
 * ranges, \d \w \s \b and their opposites, groups, lookaheads, alternation, greedy
 * and lazy quantifiers, '^' and '$'.  docs/ADAPTERS.md is the list for readers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_PATTERN_SYNTAX_H
#define ADAPTER_PATTERN_SYNTAX_H

#include "base/error.h"
#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * Append `text` to *out as PCRE2 is to read it.  ERR_FORMAT: outside the subset, with the position.
 * *has_classes: the expression has an escape whose meaning depends on Unicode tables, on which the
 * engines agree for printable ASCII only.
 */
int pattern_translate(struct text *out, const char *text, size_t bytes, bool *has_classes,
                      struct error *err);

#endif

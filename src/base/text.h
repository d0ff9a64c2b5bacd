/*
 * text.h - a growing string
 *
 * `data` is always followed by a NUL once anything was added; it is NULL before.
 * After the first failed allocation `failed` stays set, further additions do
 * nothing, and one check of `failed` at the end is enough.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct text {
    char *data;
    size_t bytes; /* without the NUL */
    size_t capacity;
    bool failed;
};

/* All zero is an empty text: struct text t = { 0 }. */
void text_release(struct text *text);

void text_clear(struct text *text); /* keeps the memory */
void text_add(struct text *text, const char *bytes, size_t count);
void text_adds(struct text *text, const char *string);
/* printf in the C locale, whatever the host program has set. */
void text_addf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* strtod() in the C locale, whatever the host program has set. */
double text_to_number(const char *text, char **end);

bool text_ends_with(const char *text, const char *end);

/* Length of the valid UTF-8 sequence that begins at `bytes` and ends before `count`, or 0. */
size_t text_utf8_length(const char *bytes, size_t count);

/* Add as a JSON string with its quotes.  A byte that is not UTF-8 (a file's name may hold any)
 * becomes U+FFFD, because JSON is UTF-8. */
void text_add_json(struct text *text, const char *bytes, size_t count);

/* Give the memory away: the caller frees it; NULL if an allocation failed.  `text` is then empty.
 */
char *text_take(struct text *text);

/* "1 module", "2 modules": `word` takes an s. */
void text_add_count(struct text *text, unsigned long long count, const char *word);

/* "16.06 GB", "512 bytes": decimal units with three or four digits. */
void text_add_bytes(struct text *text, unsigned long long bytes);

#endif

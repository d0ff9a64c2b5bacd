/*
 * json.h - strict JSON: a pull tokenizer without allocation, and cJSON behind a check
 *
 * Strict means RFC 8259: UTF-8 without BOM, no raw control characters, no lone
 * surrogates, no leading zeros, nothing behind the value but white space.
 * JSON_PYTHON also admits NaN, Infinity and -Infinity, which Python's json
 * writes.  Depth is limited to JSON_DEPTH_MAX.
 *
 * Threads: readers are independent; no global state but cJSON's.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;
struct text;

#define JSON_DEPTH_MAX 64
#define JSON_PYTHON 1u /* flag: admit NaN, Infinity, -Infinity */

/* A small document (config, adapter config, job file) may not be larger than this. */
#define JSON_DOCUMENT_BYTES_MAX (64u << 20)
#define JSON_TOKENS_MAX 1000000u /* and not have more keys, values and ends than this */

enum json_kind {
    JSON_OBJECT_BEGIN,
    JSON_OBJECT_END,
    JSON_ARRAY_BEGIN,
    JSON_ARRAY_END,
    JSON_KEY, /* a member's name; its value is the next token */
    JSON_STRING,
    JSON_NUMBER, /* with JSON_PYTHON also NaN and the infinities */
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
    JSON_END /* after the value and trailing white space */
};

struct json_token {
    enum json_kind kind;
    const char *begin; /* raw text, strings with their quotes; points into the document */
    size_t bytes;
    unsigned depth; /* of the container that holds it; the outermost value has 0 */
    bool escaped;   /* key or string contains a backslash */
};

struct json_reader {
    const char *text;
    size_t bytes;
    size_t offset;
    unsigned flags;
    unsigned depth;
    int state;
    uint64_t object_bits[JSON_DEPTH_MAX / 64]; /* which open containers are objects */
};

/* `text` must outlive the reader; it need not end in NUL. */
void json_reader_init(struct json_reader *reader, const char *text, size_t bytes, unsigned flags);

/* The next token, or ERR_FORMAT with the byte offset and what was expected there. */
int json_next(struct json_reader *reader, struct json_token *out, struct error *err);

/* Skip the rest of the value that `token` began (nothing to do for scalars and keys). */
int json_skip(struct json_reader *reader, const struct json_token *token, struct error *err);

/*
 * Append the decoded bytes of a key or string (may contain NUL if the text has \u0000).  Unless
 * `out` has failed its data is then not NULL, even if nothing was appended.
 */
void json_string_decode(const struct json_token *token, struct text *out);

/* Is the key or string `word`, after decoding? */
bool json_string_is(const struct json_token *token, const char *word);

/* A number that is written as a plain non-negative integer: digits only, no sign, '.', or 'e'. */
bool json_number_u64(const struct json_token *token, uint64_t *out);

/*
 * Check a whole document: strict, no duplicate keys in any object (compared after decoding),
 * no key or string with \u0000, not larger than the limits above.  ERR_FORMAT otherwise.
 */
int json_check(const char *text, size_t bytes, unsigned flags, struct error *err);

/*
 * json_check(), then a cJSON tree that the caller frees with cJSON_Delete().
 * With JSON_PYTHON non-finite numbers become cJSON numbers that are NaN or infinite; a number that
 * no double can hold (1e999) is infinite with or without it: the caller judges.
 */
int json_parse(struct cJSON **out, const char *text, size_t bytes, unsigned flags,
               struct error *err);

#endif

/*
 * config_internal.h - what the files of config_text.h share
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_CONFIG_INTERNAL_H
#define FORMAT_CONFIG_INTERNAL_H

#include "base/json.h"
#include "format/config_text.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

bool config_key_is(const struct json_token *key, const char *name);
bool config_key_among(const struct json_token *key, const char *const *names, size_t count);
bool config_key_of_layers(const struct json_token *key); /* a spelling of the number of layers */

/*
 * Which of the open containers are about the language model: the outermost object, and text_config
 * and its like inside such an object.  Anything else, as vision_config, is not.
 */
struct config_path {
    bool language[JSON_DEPTH_MAX + 1]; /* by depth */
};

/* To be called with every token, `key` being the token before it. */
void config_path_follow(struct config_path *path, const struct json_token *key,
                        const struct json_token *token);
/* Does the token stand directly in such an object? */
bool config_path_holds(const struct config_path *path, const struct json_token *token);

struct config_survey {
    struct config_facts facts;
    unsigned innermost; /* depth of the innermost object about the language model */
};

/* The text has passed json_check() and is an object. */
int config_survey_read(struct config_survey *out, const char *json, size_t bytes,
                       struct error *err);

struct config_editor {
    struct text *out;
    const char *copied; /* the input is in the output up to here */
    const struct config_edits *edits;
    struct config_survey survey;
    struct config_path path;
};

void config_replace(struct config_editor *editor, const struct json_token *value, const char *with);
/* Put all before `end` into the output, and go on behind `resume`. */
void config_copy(struct config_editor *editor, const char *end, const char *resume);

/*
 * Does the object that begins with `object`, which `at` is behind, hold the key `name` itself (not
 * deeper)?
 */
int config_object_holds(const struct json_reader *at, const struct json_token *object,
                        const char *name, bool *holds, bool *empty, struct error *err);

/* Put members in front of those of an object, spaced as its first member is. */
void config_put_in(struct config_editor *editor, const struct json_token *object, const char *end,
                   const struct config_member *members, size_t count, bool empty);

/*
 * Append the text without quantization_config and compression_config at any level; with
 * keep_outermost that of the outermost object stays, to be replaced.
 */
int config_unquantise(struct text *out, const char *json, size_t bytes, bool keep_outermost,
                      struct error *err);

/*
 * Change the member of an object about the language model that tells of its layers, if it does.
 * `reader` is behind `value`, and moves on behind a list that was rewritten.  ERR_FORMAT: the
 * result would be larger than a document may be.
 */
int config_edit_layers(struct config_editor *editor, struct json_reader *reader,
                       const struct json_token *key, const struct json_token *value,
                       struct error *err);

#endif

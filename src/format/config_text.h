/*
 * config_text.h - config.json, edited as text
 *
 * A configuration is never reprinted: its author's order, spacing and unknown
 * fields are kept byte for byte, and only the values that a merge changes are
 * replaced.  Python's NaN and Infinity are tolerated.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef FORMAT_CONFIG_TEXT_H
#define FORMAT_CONFIG_TEXT_H

#include "base/error.h"
#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>

/* What a merge wants to know of a model's configuration. */
struct config_facts {
    int tied;              /* tie_word_embeddings: 1, 0, or -1 if no level says it */
    bool quantised;        /* quantization_config is there, at any level */
    char model_type[64];   /* "" if it is not said or longer */
    char architecture[96]; /* the first of architectures, or "" */
};

/* ERR_FORMAT if the text is not an object of strict JSON (Python's numbers admitted). */
int config_read_facts(struct config_facts *out, const char *json, size_t bytes, struct error *err);

struct config_edits {
    bool untie;        /* tie_word_embeddings false at every level, added where it is missing */
    const char *dtype; /* "bfloat16": dtype and torch_dtype at every level; NULL: leave them */
};

/* Append the edited text.  The input has passed config_read_facts(). */
int config_apply(struct text *out, const char *json, size_t bytes, const struct config_edits *edits,
                 struct error *err);

#endif

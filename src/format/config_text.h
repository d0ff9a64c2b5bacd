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
#include <stdint.h>

/* What a merge wants to know of a model's configuration. */
struct config_facts {
    int tied;       /* tie_word_embeddings: 1, 0, or -1 if no level says it */
    bool quantised; /* quantization_config is there, at any level */
    /*
     * Of the language model: said by the outermost object or, where it is silent, by text_config
     * or its like.  0 if no level says it with a plain positive number.
     */
    uint64_t vocab_size;
    uint64_t num_hidden_layers; /* or n_layer, n_layers, num_layers, or the length of layer_types */
    char model_type[64];        /* "" if it is not said or longer */
    char architecture[96];      /* the first of architectures, or "" */
};

/* ERR_FORMAT if the text is not an object of strict JSON (Python's numbers admitted). */
int config_read_facts(struct config_facts *out, const char *json, size_t bytes, struct error *err);

struct config_edits {
    bool untie;        /* tie_word_embeddings false at every level, added where it is missing */
    const char *dtype; /* "bfloat16": dtype and torch_dtype at every level; NULL: leave them */
    /*
     * vocab_size (and padded_vocab_size) at every level where it is vocab_from; added where no
     * level says it.  vocab_to 0: leave them.
     */
    uint64_t vocab_from;
    uint64_t vocab_to;
    uint64_t
        labels; /* num_labels of the outermost object, added where it is missing; 0: leave it */
    /*
     * New layer j is a copy of layer base_layers[j]: the number of layers becomes
     * base_layer_count, and lists with an element for each layer, or with numbers of layers, are
     * made anew.  Only in objects about the language model, never in vision_config and others.
     * Count 0: leave them.
     */
    const uint64_t *base_layers;
    uint64_t base_layer_count;
    /*
     * The weights are no longer quantised: quantization_config and its like (MLX's) go, at every
     * level, each with a comma; all else stays.
     */
    bool unquantise;
    /* JSON that becomes quantization_config of the outermost object; NULL: it stays as it is. */
    const char *quantise;
};

/*
 * Append the edited text.  The input has passed config_read_facts().  ERR_FORMAT: it does not say
 * how many layers there are, or becomes too large; ERR_MISMATCH: it has not the layers that
 * base_layers names.
 */
int config_apply(struct text *out, const char *json, size_t bytes, const struct config_edits *edits,
                 struct error *err);

/* A member of an object. */
struct config_member {
    const char *name;
    const char *value; /* JSON */
};

/* A quantization_config of bitsandbytes with 4 bits. */
struct config_bnb {
    const char *quant_type;    /* "nf4" or "fp4" */
    const char *compute_dtype; /* "bfloat16" */
    bool nested;
    const char *const *skip_modules; /* linear layers that stay as they are */
    size_t skip_count;               /* 0: null, that is, what the reader leaves out by itself */
};

/* Append it as transformers writes it, indented for the outermost object: for edits.quantise. */
void config_bnb_text(struct text *out, const struct config_bnb *bnb);

#define CONFIG_MEMBERS_MAX 8u

/*
 * Append the text with these members (at most CONFIG_MEMBERS_MAX) of its outermost object set: in
 * place of the values that they have, or in front of the others.  The input has passed json_check()
 * and is an object.
 */
int config_set_members(struct text *out, const char *json, size_t bytes,
                       const struct config_member *members, size_t count, struct error *err);

#endif

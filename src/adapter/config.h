/*
 * config.h - adapter_config.json
 *
 * Field names and meanings are PEFT's LoraConfig (0.21).  What changes the
 * result and cannot be folded is refused by name here; what does not change the
 * result is ignored; unknown fields are noticed with -v, as PEFT ignores them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_CONFIG_H
#define ADAPTER_CONFIG_H

#include "adapter/pattern.h"
#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "This module": a list of names or one regular expression. */
struct module_matcher {
    char **names; /* unless the field says otherwise: name == n, or name ends in "." + n */
    size_t name_count;
    struct pattern *pattern; /* fullmatch; NULL if a list */
    bool all;                /* "all-linear": matches everything */
    bool present;            /* false: the field is null or absent */
};

struct pattern_value {
    char *text; /* the key, as written */
    struct pattern *pattern;
    double value;
};

/* trainable_token_indices, or token_indices: rows of one module's weight. */
struct token_rows {
    char *module;   /* "embed_tokens": the end of a path, without a border at a dot; NULL: the input
                       embedding, or with ADAPTER_TRAINABLE_TOKENS each module that has rows */
    uint64_t *rows; /* in the order of the saved rows; none twice, each below 2^32 */
    size_t count;   /* >= 1 */
};

enum adapter_type { ADAPTER_LORA, ADAPTER_TRAINABLE_TOKENS };

/* Which biases of the base the file replaces. */
enum adapter_bias { ADAPTER_BIAS_NONE, ADAPTER_BIAS_ALL, ADAPTER_BIAS_LORA_ONLY };

struct adapter_config {
    enum adapter_type type;
    char *base_model;   /* base_model_name_or_path, or NULL */
    char *revision;     /* of the base, or NULL */
    char *peft_version; /* or NULL */
    uint32_t rank;      /* r, >= 1 */
    double alpha;       /* lora_alpha, finite */
    bool rslora;
    bool fan_in_fan_out;
    struct pattern_value *rank_pattern; /* in the order of the file: the first match wins */
    size_t rank_pattern_count;
    struct pattern_value *alpha_pattern;
    size_t alpha_pattern_count;
    struct module_matcher target_modules;
    struct module_matcher exclude_modules;
    int64_t *layers_to_transform; /* NULL: all layers */
    size_t layers_to_transform_count;
    char **layers_pattern;
    size_t layers_pattern_count;
    enum adapter_bias bias;
    bool lora_bias;
    bool dora;
    bool tie;                              /* ensure_weight_tying */
    struct module_matcher modules_to_save; /* names: ends of paths, without a border at a dot */
    struct token_rows *token_rows;
    size_t token_rows_count;
    char **target_parameters; /* whole paths or ends of paths at a dot, as in target_modules */
    size_t target_parameters_count;
    uint64_t (*layer_replication)[2]; /* half-open ranges of layers of the base, none empty; at most
                                         100000 layers together */
    size_t layer_replication_count;
    bool bdlora;                    /* use_bdlora, and its fields */
    uint32_t bdlora_blocks;         /* 1 to 65536 */
    struct module_matcher bdlora_a; /* names: parts of the paths whose A is block-diagonal */
    struct module_matcher bdlora_b;
    char *b_layout; /* lora_B_layout, Unsloth's word for the order of the columns of the experts' B
                       factors, or NULL */
    bool unsloth;   /* auto_mapping.unsloth_fixed: Unsloth wrote it, perhaps before lora_B_layout */
};

/*
 * Parse the text of an adapter_config.json.  ERR_FORMAT: damaged; a kind of adapter that is not
 * folded, by name and with what to do; a value out of its range; a pattern outside the admitted
 * subset; fields that PEFT does not allow together.  On success the caller releases *out.
 */
int adapter_config_parse(struct adapter_config *out, const char *json, size_t bytes,
                         const struct log *log, struct error *err);
void adapter_config_release(struct adapter_config *config);

/*
 * Rank and scale of the module `name` (runtime path without "base_model.model."), after the
 * patterns: scale = alpha / r, with rslora alpha / sqrt(r), in double, without the weight.
 */
int adapter_config_module(const struct adapter_config *config, const char *name, uint32_t *rank,
                          double *scale, struct error *err);

/*
 * Would PEFT put LoRA on the module `name`: targeted, not excluded, not saved whole, in the chosen
 * layers?  Parameters that target_parameters names are not modules.
 */
int adapter_config_targets(const struct adapter_config *config, const char *name, bool *targeted,
                           struct error *err);

/* Is the module `name`, or one around it, in modules_to_save? */
bool adapter_config_saves(const struct adapter_config *config, const char *name);

/*
 * The rows of the module `name`, or NULL.  Whether a module that no name fits is the input
 * embedding, or tied to it, is for the caller to know: it gets the entry without a name.
 */
const struct token_rows *adapter_config_tokens(const struct adapter_config *config,
                                               const char *name);

/* Blocks on the diagonals of the factors of the module `name`; 1: an ordinary factor. */
int adapter_config_blocks(const struct adapter_config *config, const char *name, uint32_t *blocks_a,
                          uint32_t *blocks_b, struct error *err);

#endif

/*
 * config_fields.h - every field of an adapter_config.json: used, harmless, or refused
 *
 * config_types.c: peft_type; config_fields.c: the table of fields, and how training began;
 * config_value.c: values of one type; config_saved.c and config_kinds.c: fields of the kinds of
 * adapters.  All refusals are ERR_FORMAT.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_CONFIG_FIELDS_H
#define ADAPTER_CONFIG_FIELDS_H

#include "adapter/config.h"
#include "base/error.h"
#include "base/log.h"

#include <cjson/cJSON.h>
#include <stdbool.h>

/* peft_type; every kind that is not folded is refused by name, with what to do instead. */
int config_read_type(enum adapter_type *out, const cJSON *root, struct error *err);

/*
 * Refuse every field that changes the result in a way that is not folded.  Fields that PEFT does
 * not know for this type either are told to `log` as details.
 */
int config_check_fields(const cJSON *root, enum adapter_type type, const struct log *log,
                        struct error *err);

/* bias, modules_to_save and what task_type adds to it, trainable_token_indices. */
int config_read_saved(struct adapter_config *out, const cJSON *root, struct error *err);

/* token_indices of the type TRAINABLE_TOKENS. */
int config_read_tokens(struct adapter_config *out, const cJSON *root, struct error *err);

/* use_dora, lora_bias, target_parameters, layer_replication, use_bdlora, and which of them PEFT
 * does not allow together. */
int config_read_kinds(struct adapter_config *out, const cJSON *root, struct error *err);

/* The field, or NULL if it is absent or null. */
const cJSON *config_get(const cJSON *root, const char *name);

/* Absent and null leave *out as it is, except for strings: NULL for null, absent and empty. */
int config_read_flag(bool *out, const cJSON *root, const char *name, struct error *err);
int config_read_string(char **out, const cJSON *root, const char *name, struct error *err);

bool config_is_integer(const cJSON *value, double low, double high);

/* error_set(ERR_FORMAT, "'<field>' is <value>: <why>"), the value shortened. */
int config_refuse(const cJSON *field, const char *why, struct error *err);

#endif

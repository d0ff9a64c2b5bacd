/*
 * config_fields.h - every field of an adapter_config.json: used, harmless, or refused
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_CONFIG_FIELDS_H
#define ADAPTER_CONFIG_FIELDS_H

#include "base/error.h"
#include "base/log.h"

struct cJSON;

/*
 * Check peft_type, and refuse (ERR_FORMAT) every field that changes the result in a way that is not
 * folded.  Fields that PEFT does not know either are told to `log` as details.
 */
int config_check_fields(const struct cJSON *root, const struct log *log, struct error *err);

/* error_set(ERR_FORMAT, "'<field>' is <value>: <why>"), the value shortened. */
int config_refuse(const struct cJSON *field, const char *why, struct error *err);

#endif

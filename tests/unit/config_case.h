/*
 * config_case.h - configurations of adapters that must be refused, each with its sentence
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef TESTS_UNIT_CONFIG_CASE_H
#define TESTS_UNIT_CONFIG_CASE_H

#include "adapter/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A whole configuration around the fields of a case. */
#define LORA(fields) "{\"peft_type\":\"LORA\"" fields "}"
#define TOKENS(fields) "{\"peft_type\":\"TRAINABLE_TOKENS\"" fields "}"

struct refused_config {
    const char *json;
    const char *part; /* of the sentence */
};

static int parse(struct adapter_config *config, const char *json, const struct log *log,
                 struct error *err)
{
    return adapter_config_parse(config, json, strlen(json), log, err);
}

/* Each is refused with its sentence, and nothing is written. */
static void check_refused(const struct refused_config *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct adapter_config config = { .rank = 77 };
        struct error err = { 0 };
        int code = parse(&config, cases[i].json, NULL, &err);

        if (code != ERR_FORMAT || !strstr(err.text, cases[i].part))
            fail_msg("%s: %d %s", cases[i].json, code, err.text);
        assert_int_equal(config.rank, 77);
    }
}

#endif

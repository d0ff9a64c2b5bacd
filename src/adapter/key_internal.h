/*
 * key_internal.h - the components of an adapter tensor's name
 *
 * key.c says what a name means, spelling.c how PEFT writes it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#ifndef ADAPTER_KEY_INTERNAL_H
#define ADAPTER_KEY_INTERNAL_H

#include "adapter/key.h"

#define ADAPTER_KEY_PREFIX "base_model.model."

/* Between two dots of a name. */
struct key_component {
    const char *begin;
    size_t bytes;
};

/* What may stand behind the component that says what a tensor is, and its adapter's name. */
enum key_ending {
    KEY_ENDING_NONE = 1,
    KEY_ENDING_WEIGHT = 2,
    KEY_ENDING_BIAS = 4,
    KEY_ENDING_OTHER = 8
};

/* The component that says what a tensor is. */
struct key_marker {
    const char *component;
    enum adapter_key_kind kind;
    enum adapter_layer layer;
    unsigned endings; /* admitted ones; with KEY_ENDING_BIAS the kind is ADAPTER_KEY_B_BIAS */
};

/* The component that begins at *at, which moves behind its dot; false behind the end. */
bool key_next_component(struct key_component *out, const char *name, size_t bytes, size_t *at);
bool key_component_is(const struct key_component *component, const char *text);
bool key_starts_with(const char *name, size_t bytes, const char *text);

/* What wraps modules while a model trains, and leaves its name in the keys of a careless save. */
bool key_is_wrapper(const struct key_component *component);
bool key_is_adapter_name(const struct key_component *component, const char *adapter_name);
const struct key_marker *key_find_marker(const struct key_component *component);

/* Pass over what stands in front.  PEFT writes the prefix once and nothing else: otherwise *odd. */
void key_strip_front(const char **name, size_t *bytes, bool *odd);

#endif

#include "adapter/key_internal.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool key_next_component(struct key_component *out, const char *name, size_t bytes, size_t *at)
{
    const char *dot;

    if (*at > bytes)
        return false;
    dot = memchr(name + *at, '.', bytes - *at);
    out->begin = name + *at;
    out->bytes = dot ? (size_t)(dot - out->begin) : bytes - *at;
    *at += out->bytes + 1;
    return true;
}

bool key_component_is(const struct key_component *component, const char *text)
{
    return strlen(text) == component->bytes &&
           memcmp(component->begin, text, component->bytes) == 0;
}

bool key_starts_with(const char *name, size_t bytes, const char *text)
{
    return bytes >= strlen(text) && memcmp(name, text, strlen(text)) == 0;
}

bool key_is_wrapper(const struct key_component *component)
{
    return key_component_is(component, "_orig_mod") ||
           key_component_is(component, "_fsdp_wrapped_module") ||
           key_component_is(component, "_checkpoint_wrapped_module");
}

bool key_is_adapter_name(const struct key_component *component, const char *adapter_name)
{
    return key_component_is(component, adapter_name) ||
           key_component_is(component, ADAPTER_KEY_DEFAULT_NAME);
}

static const struct key_marker markers[] = {
    { "lora_A", ADAPTER_KEY_A, ADAPTER_LAYER_WEIGHT, KEY_ENDING_WEIGHT },
    { "lora_B", ADAPTER_KEY_B, ADAPTER_LAYER_WEIGHT, KEY_ENDING_WEIGHT | KEY_ENDING_BIAS },
    { "lora_embedding_A", ADAPTER_KEY_A, ADAPTER_LAYER_EMBEDDING, KEY_ENDING_NONE },
    { "lora_embedding_B", ADAPTER_KEY_B, ADAPTER_LAYER_EMBEDDING, KEY_ENDING_NONE },
    { "lora_magnitude_vector", ADAPTER_KEY_MAGNITUDE, ADAPTER_LAYER_WEIGHT,
      KEY_ENDING_NONE | KEY_ENDING_WEIGHT },
    { "trainable_tokens_delta", ADAPTER_KEY_ROWS, ADAPTER_LAYER_WEIGHT, KEY_ENDING_NONE },
};

const struct key_marker *key_find_marker(const struct key_component *component)
{
    for (size_t i = 0; i < COUNT(markers); i++) {
        if (key_component_is(component, markers[i].component))
            return &markers[i];
    }
    return NULL;
}

/* Read an adapter's name, if there is one, and the ending behind a marker. */
static enum key_ending read_ending(const char *name, size_t bytes, size_t at,
                                   const char *adapter_name)
{
    struct key_component component;

    if (!key_next_component(&component, name, bytes, &at))
        return KEY_ENDING_NONE;
    if (key_is_adapter_name(&component, adapter_name) &&
        !key_next_component(&component, name, bytes, &at))
        return KEY_ENDING_NONE;
    if (at <= bytes)
        return KEY_ENDING_OTHER;
    if (key_component_is(&component, "weight"))
        return KEY_ENDING_WEIGHT;
    return key_component_is(&component, "bias") ? KEY_ENDING_BIAS : KEY_ENDING_OTHER;
}

void key_strip_front(const char **name, size_t *bytes, bool *odd)
{
    static const char *const fronts[] = { ADAPTER_KEY_PREFIX, "module.", "_orig_mod.",
                                          "_fsdp_wrapped_module.", "_checkpoint_wrapped_module." };
    size_t prefixes = 0;
    size_t others = 0;
    size_t i = 0;

    while (i < COUNT(fronts)) {
        if (!key_starts_with(*name, *bytes, fronts[i])) {
            i++;
            continue;
        }
        *name += strlen(fronts[i]);
        *bytes -= strlen(fronts[i]);
        *(i == 0 ? &prefixes : &others) += 1;
        i = 0;
    }
    *odd = prefixes != 1 || others != 0;
}

/* Add a component to the path.  A base_layer that is not at the end belongs to an owner. */
static void add_component(struct adapter_key *key, struct text *path,
                          const struct key_component *component)
{
    if (key->depth)
        key->owner_bytes = path->bytes;
    key->depth = 0;
    if (path->bytes)
        text_adds(path, ".");
    text_add(path, component->begin, component->bytes);
}

/* The components up to the one that says what the tensor is; *at is then behind it. */
static const struct key_marker *read_path(struct adapter_key *key, struct text *path,
                                          const char *name, size_t bytes, size_t *at,
                                          const char *adapter_name)
{
    struct key_component component;
    struct key_component next;
    bool ends_in_name = false;

    key->kind = ADAPTER_KEY_OTHER;
    while (key_next_component(&component, name, bytes, at)) {
        const struct key_marker *marker = key_find_marker(&component);
        size_t behind = *at;

        ends_in_name = false;
        if (marker || component.bytes == 0)
            return marker;
        if (key_starts_with(component.begin, component.bytes, "lora_velora") ||
            key_component_is(&component, "lora_monteclora_sampler")) {
            key->kind = ADAPTER_KEY_TRAINING;
            return NULL;
        }
        if (key_starts_with(component.begin, component.bytes, "lora_")) {
            if (key_component_is(&component, "lora_diag"))
                key->what = "is a diagonal of KaSA, which also changes the base: not supported";
            return NULL;
        }
        if (key_is_wrapper(&component)) {
            key->odd = true;
        } else if (key_component_is(&component, "base_layer")) {
            key->depth++;
        } else if (key_component_is(&component, "modules_to_save")) {
            key->form = ADAPTER_FORM_TO_SAVE;
            if (key_next_component(&next, name, bytes, &behind) &&
                key_is_adapter_name(&next, adapter_name))
                *at = behind;
        } else if (key_component_is(&component, "original_module")) {
            key->form = ADAPTER_FORM_ORIGINAL;
        } else if (!key_component_is(&component, "token_adapter")) {
            add_component(key, path, &component);
            ends_in_name = true;
        }
    }
    if (ends_in_name)
        key->kind = ADAPTER_KEY_SAVED;
    return NULL;
}

int adapter_key_read(struct adapter_key *out, const char *name, size_t bytes,
                     const char *adapter_name, struct error *err)
{
    struct text path = { 0 };
    const struct key_marker *marker;
    size_t at = 0;

    *out = (struct adapter_key){ 0 };
    key_strip_front(&name, &bytes, &out->odd);
    marker = read_path(out, &path, name, bytes, &at, adapter_name);
    if (marker && path.bytes &&
        (out->form == ADAPTER_FORM_PLAIN || marker->kind == ADAPTER_KEY_ROWS)) {
        enum key_ending ending = read_ending(name, bytes, at, adapter_name);

        if (marker->endings & ending) {
            out->kind = ending == KEY_ENDING_BIAS ? ADAPTER_KEY_B_BIAS : marker->kind;
            out->layer = marker->layer;
        }
        if (out->kind == ADAPTER_KEY_ROWS)
            text_adds(&path, ".weight");
    }
    if (path.failed) {
        text_release(&path);
        return error_no_memory(err, "a tensor name");
    }
    if (out->kind < ADAPTER_KEY_TRAINING)
        out->path = text_take(&path);
    text_release(&path);
    return 0;
}

bool adapter_key_find_name(const char *name, size_t bytes, const char **begin, size_t *count)
{
    struct key_component component;

    for (size_t at = 0; key_next_component(&component, name, bytes, &at);) {
        const struct key_marker *marker = key_find_marker(&component);

        if (!marker || marker->kind > ADAPTER_KEY_B)
            continue;
        *count = 0;
        if (key_next_component(&component, name, bytes, &at) &&
            !key_component_is(&component, "weight") && !key_component_is(&component, "bias")) {
            *begin = component.begin;
            *count = component.bytes;
        }
        return true;
    }
    return false;
}

/* The understood name that an oddly spelled one most likely stands for. */
static void add_nearest(struct text *out, const char *name, size_t bytes)
{
    struct key_component component;
    bool odd;

    key_strip_front(&name, &bytes, &odd);
    text_adds(out, ADAPTER_KEY_PREFIX);
    for (size_t at = 0; key_next_component(&component, name, bytes, &at);) {
        const struct key_marker *marker = key_find_marker(&component);

        if (marker || key_component_is(&component, "lora_down") ||
            key_component_is(&component, "lora_up")) {
            text_adds(out, marker                                    ? marker->component
                           : key_component_is(&component, "lora_up") ? "lora_B"
                                                                     : "lora_A");
            if (!marker || !(marker->endings & KEY_ENDING_NONE))
                text_adds(out, ".weight");
            return;
        }
        if (key_is_wrapper(&component) || component.bytes == 0)
            continue;
        text_add(out, component.begin, component.bytes);
        text_adds(out, ".");
    }
}

int adapter_key_refuse(const struct adapter_key *key, const char *name, size_t bytes,
                       struct error *err)
{
    char quoted[QUOTED_BYTES];
    char quoted_nearest[QUOTED_BYTES];
    struct text nearest = { 0 };

    error_quote(quoted, sizeof(quoted), name, bytes);
    if (key->what)
        return error_set(err, ERR_FORMAT, "tensor '%s' %s; --allow-unused leaves it out", quoted,
                         key->what);
    add_nearest(&nearest, name, bytes);
    if (nearest.failed)
        error_no_memory(err, "a tensor name");
    else
        error_set(err, ERR_FORMAT,
                  "tensor '%s' is not spelled as PEFT writes it; the nearest name that is "
                  "understood is '%s'",
                  quoted,
                  error_quote(quoted_nearest, sizeof(quoted_nearest), nearest.data, nearest.bytes));
    text_release(&nearest);
    return err->code;
}
